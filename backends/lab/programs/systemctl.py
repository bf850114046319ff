"""`systemctl` of a lab host: hands its command line to the lab, which starts and stops the host's units."""

from __future__ import annotations

import json
import socket
import sys


def main(path: str, host: str, *arguments: str) -> int:
    """Carry out one command line and return its exit status."""
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX) as lab:
            lab.connect(path)
            lab.sendall(json.dumps({"systemctl": arguments, "host": host}).encode())
            lab.shutdown(socket.SHUT_WR)
            while data := lab.recv(65536):
                answer += data
        said = json.loads(answer)
    except (OSError, ValueError):
        sys.stderr.write("Failed to connect to bus: No such file or directory\n")
        return 1
    if "error" in said:
        sys.stderr.write(f"{said['error']}\n")
        return 1
    sys.stdout.write(said["out"])
    sys.stderr.write(said["err"])
    return int(said["status"])
