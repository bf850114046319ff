"""The process that ends what a lab left behind when the lab itself was killed.

Run by path with a bare interpreter, so it imports nothing of the project. It reads one JSON object a line from stdin:
`{"mark": id}` names the environment variable value that the lab's commands carry, `{"add": pid, "start": ticks,
"signal": n}` a server, `{"remove": pid}` one that has ended, `{"delete": path}` a directory to remove. When stdin
ends, whichever way the lab ended, it ends those processes and all that carry the mark, and deletes those directories.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

VARIABLE = "MASTOVAULT_LAB"
PATIENCE = 4.0


def started(pid: int) -> int | None:
    """When a process began, in clock ticks since boot (proc(5), field 22 of stat); None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def marked(mark: str) -> set[int]:
    """The processes whose environment says that they belong to a lab."""
    wanted = f"{VARIABLE}={mark}".encode()
    found = set()
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0") and started(int(entry)):
                    found.add(int(entry))
    return found


def send(pid: int, number: int) -> None:
    """Signal one process; one that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def end(servers: dict[int, tuple[int, int]], mark: str) -> None:
    """Ask all to stop, then kill what is still there; forks that come late are found by their mark."""
    for pid, (start, number) in servers.items():
        if started(pid) == start:
            send(pid, number)
    for pid in marked(mark):
        send(pid, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while True:
        left = {pid for pid, (start, _) in servers.items() if started(pid) == start}
        commands = marked(mark) - left
        if not left and not commands:
            return
        for pid in commands:
            send(pid, signal.SIGCONT)
        if time.monotonic() > deadline:
            for pid in left | commands:
                send(pid, signal.SIGKILL)
        time.sleep(0.02)


def main() -> None:
    """Follow stdin to its end, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    servers: dict[int, tuple[int, int]] = {}
    deletions: list[str] = []
    mark = ""
    for line in sys.stdin:
        with contextlib.suppress(ValueError):
            message = json.loads(line)
            mark = message.get("mark", mark)
            if "add" in message:
                servers[message["add"]] = (message["start"], message["signal"])
            servers.pop(message.get("remove"), None)
            deletions += [message["delete"]] if "delete" in message else []
    end(servers, mark)
    for path in deletions:
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main()
