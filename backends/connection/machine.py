"""What connections share, whatever carries them: wrapping, becoming, running to the end, ending."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import abstractmethod
from collections.abc import Callable

from backends.config.schema import HostConfig
from backends.connection.base import MAX_OUTPUT, Command, Completed, Connection
from backends.connection.become import Become, Right
from backends.connection.login import Ask
from backends.connection.process import GRACE, START_TIMEOUT, NoStart, RunningProcess
from backends.connection.stream import Stream
from backends.connection.tail import StderrTail
from backends.connection.wrapper import wrap
from backends.errors import BecomeRefused, CommandFailed, LoginRefused, MastovaultError
from backends.untrusted import clean

Follow = Callable[[bytes], None] | None
_STDERR_LIMIT = 1024 * 1024
_PIPE = 60 * 1024
"""Bytes that a pipe takes without a reader."""
# $1 process group or 0, $2 process. TERM first; KILL for what is left after 3 seconds.
# dash wants the --, others may not know it. A zombie that nobody collects is not alive.
_END = (
    'k() { kill -s "$1" -- "$t" 2>/dev/null || kill -s "$1" "$t" 2>/dev/null; }; '
    "alive() { k 0 || return 1; l=$(ps -A -o $c= -o stat= 2>/dev/null) || return 0; "
    'echo "$l" | grep -q "^ *$i  *[^Z ]"; }; '
    'if [ "$1" -gt 1 ]; then c=pgid; i=$1; t=-$1; else c=pid; i=$2; t=$2; fi; k TERM || exit 0; n=0; '
    "while alive; do n=$((n+1)); if [ $n -gt 30 ]; then k KILL; exit 0; fi; sleep 0.1 2>/dev/null || sleep 1; done"
)


class Machine(Connection):
    """A host on which commands can be started, somehow."""

    def __init__(self, name: str, login_user: str, host: HostConfig, ask: Ask | None) -> None:
        self.host = name
        self.login_user = login_user
        self._become = Become(name, login_user, host, ask, self._attempt)

    @abstractmethod
    def _stream(self, argv: tuple[str, ...], tail: StderrTail, *, bulk: bool, urgent: bool = False) -> Stream:
        """Start a raw command.

        Args:
            argv: program and arguments.
            tail: takes what it says on stderr.
            bulk: much data will come.
            urgent: it ends another one, so it must not wait for a place.
        """

    def start(self, command: Command, *, on_stderr: Callable[[bytes], None] | None = None) -> RunningProcess:
        """Start a command whose output is streamed; see the contract."""
        return self._start(command, bulk=True, follow=on_stderr)

    def run(self, command: Command, *, stdin: bytes = b"", timeout: float = 60.0, limit: int = MAX_OUTPUT) -> Completed:
        """Run a command to its end; see the contract."""
        deadline = time.monotonic() + timeout
        with self._start(command, bulk=False, keep=limit) as process:
            feeder = _feed(process, stdin)
            pieces: list[bytes] = []
            size = 0
            try:
                while data := process.read_within(limit + 1, deadline - time.monotonic()):
                    pieces.append(data)
                    size += len(data)
                    if size > limit:
                        raise CommandFailed(
                            f"{_program(command)} on {self.host} wrote more than {limit} bytes",
                            stderr=process.stderr_tail(),
                        )
                status = process.wait(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise CommandFailed(
                    f"{_program(command)} on {self.host} took longer than {timeout:g} seconds and was ended",
                    "look at the load of the host",
                    stderr=process.stderr_tail(),
                ) from None
            if feeder is not None:
                feeder.join(GRACE)
            return Completed(status, b"".join(pieces), process.stderr_kept())

    def _start(self, command: Command, *, bulk: bool, keep: int = 0, follow: Follow = None) -> RunningProcess:
        user = command.as_user if self._become.needed(command.as_user) else None
        right = self._become.right(user) if user is not None else None
        try:
            return self._begin(command, right, user or "", bulk=bulk, keep=keep, follow=follow)
        except NoStart as failed:
            if right is not None:
                said = failed.stderr or failed.stdout or "it did not answer"
                raise BecomeRefused(
                    f"{self.login_user} could not become {user} on {self.host}: {clean(said.splitlines()[-1], 200)}",
                    "try the same by hand on the host",
                ) from None
            raise self._no_shell(failed) from None

    def _begin(
        self,
        command: Command,
        right: Right | None,
        user: str,
        *,
        bulk: bool,
        keep: int = 0,
        follow: Follow = None,
        urgent: bool = False,
        probe: bool = False,
    ) -> RunningProcess:
        password = right.line if right is not None else b""
        wrapped = wrap(
            command,
            home_of=user,
            drop_input=bool(password) and not probe,
            checked=right is not None and right.checked,
        )
        tail = StderrTail(wrapped.marker.encode() + b"\n", keep=min(keep, _STDERR_LIMIT), follow=follow)
        stream = self._stream(wrapped.behind(right.prefix if right else ()), tail, bulk=bulk, urgent=urgent)

        def end_group(group: int, pid: int) -> None:
            self._end(right, user, group, pid, stream)

        process = RunningProcess(stream, self.host, end_group)
        # Whoever asks for a second password after a wrong one must find the end of the input.
        process.begin(wrapped, password, START_TIMEOUT, end_input=probe)
        return process

    def _end(self, right: Right | None, user: str, group: int, pid: int, stream: Stream) -> None:
        """End a process group as the user it belongs to; its own streams may be gone already."""
        end = Command(("/bin/sh", "-c", _END, "sh", str(group), str(pid)))
        try:
            with contextlib.closing(self._begin(end, right, user, bulk=False, urgent=True)) as ending:
                ending.wait(2 * GRACE + 4)
        except (MastovaultError, NoStart, TimeoutError, OSError):
            stream.interrupt()

    def _attempt(self, right: Right) -> str | None:
        try:
            with contextlib.closing(self._begin(Command(("true",)), right, "", bulk=False, probe=True)) as process:
                process.wait(GRACE)
        except NoStart as failed:
            if failed.status is None:
                return "it does not answer (it may want something else than a password)"
            return failed.stderr or failed.stdout or f"status {failed.status}"
        return None

    def _no_shell(self, failed: NoStart) -> LoginRefused:
        said = (failed.stdout or failed.stderr).splitlines()
        what = f": {clean(said[-1], 200)}" if said else ""
        return LoginRefused(
            f"{self.host} let {self.login_user} in, but does not run commands{what}",
            "give the user a normal login shell (chsh -s /bin/sh), and no forced command for this key",
        )


def _feed(process: RunningProcess, stdin: bytes) -> threading.Thread | None:
    def write() -> None:
        # A command that ends before it read its input says so with its status.
        with contextlib.suppress(OSError, MastovaultError):
            process.write(stdin)
            process.close_stdin()

    if len(stdin) <= _PIPE:
        write()
        return None
    thread = threading.Thread(target=write, name="stdin", daemon=True)
    thread.start()
    return thread


def _program(command: Command) -> str:
    return clean(command.argv[0], 100)
