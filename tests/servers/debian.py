"""A Debian host of its own: systemd, sshd, sudo, PostgreSQL and Redis as Debian sets them up, in namespaces.

It has its own processes, network, hostname and files; what it writes is gone with it. Its sshd is reached over a relay
from a port on loopback.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.servers.debian_image import FILES, image
from tests.servers.debian_network import Relay, connect
from tests.servers.need import need

_BOOT_TIMEOUT = 60.0


class Debian:
    """One booted machine; use it as a context manager.

    Attributes:
        name: its hostname.
        ssh_port: a port on 127.0.0.1 here that leads to its sshd.
        key: a private key that `admin` and `ops` may log in with.
        password: that of `ops`, for sudo.
        leader: its first process, as this machine numbers it.
    """

    def __init__(self, directory: Path, name: str = "social", *, size: str = "3g") -> None:
        """Prepare; what the machine writes may take `size` of memory."""
        self._image = image()
        (self._keygen,) = need("ssh-keygen")
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.name, self._size = directory, name, size
        self.key = directory / "key"
        self.password = f"pw {os.urandom(6).hex()}!"
        self.leader = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.relay: Relay

    @property
    def ssh_port(self) -> int:
        """Where its sshd is reached from here."""
        return self.relay.port

    @property
    def fingerprint(self) -> str:
        """Of its host key, as OpenSSH shows it."""
        blob = base64.b64decode(self.run("cat /etc/ssh/ssh_host_ed25519_key.pub").split()[1])
        return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")

    def start(self) -> Self:
        """Boot it and wait until all its services are up. Skips the test where the kernel forbids it."""
        work = self.directory / "machine"
        work.mkdir(exist_ok=True)
        log = self.directory / "boot.log"
        boot = ("sh", str(FILES / "boot.sh"), "outer", str(self._image), str(work), self.name, self._size)
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", *boot),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd="/",
            )
        until = time.monotonic() + _BOOT_TIMEOUT
        while not self._booted():
            if self._process.poll() is not None:
                pytest.skip(f"needs namespaces, cgroup2 and overlayfs for a Debian: {log.read_text().strip()[-300:]}")
            assert time.monotonic() < until, f"{self.name} does not boot: {log.read_text()}"
            time.sleep(0.05)
        self.run("systemctl is-system-running --wait")
        self._let_in()
        self.relay = Relay(self.leader, 22)
        return self

    def stop(self) -> None:
        """End it and all that runs in it. Idempotent."""
        if self._process is None:
            return
        self.relay.stop()
        if self.leader:
            os.kill(self.leader, signal.SIGKILL)
        self._process.wait(30)
        self._process = None

    def run(self, script: str, *arguments: str, user: str = "root", stdin: bytes = b"", check: bool = True) -> str:
        """What a shell script there prints on either stream; `$1`, ... are the arguments."""
        inside = ("nsenter", "--target", str(self.leader), "--all", "--")
        become = () if user == "root" else ("runuser", "-u", user, "--")
        done = subprocess.run(
            (*inside, *become, "sh", "-ec", f"cd; {script}", "sh", *arguments),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp"},
            check=False,
        )
        text = done.stdout.decode(errors="replace")
        assert not check or done.returncode == 0, f"{script}: {text}"
        return text

    def path(self, path: str) -> Path:
        """A file there, as it is reached from here; mind that a symbolic link may lead out."""
        return Path(f"/proc/{self.leader}/root", path.lstrip("/"))

    def sql(self, query: str, database: str = "mastodon_production") -> str:
        """What PostgreSQL's superuser is answered, a line for each row."""
        script = 'psql -XqAt -v ON_ERROR_STOP=1 -d "$1"'
        return self.run(script, database, user="postgres", stdin=query.encode()).strip()

    def redis(self, *words: str) -> str:
        """What redis-cli prints."""
        return self.run('redis-cli "$@"', *words).strip()

    def get(self, port: int, path: str) -> tuple[int, str]:
        """Status and body of a page of its web server's; (0, why) when there is none."""
        page = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            page.sock = connect(self.leader, port)
            page.request("GET", path)
            response = page.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            page.close()

    def _booted(self) -> bool:
        """Whether systemd there answers; finds the machine's first process."""
        assert self._process is not None
        outer = _only_child(self._process.pid)
        self.leader = _only_child(outer) if outer else 0
        if not self.leader or not Path(f"/proc/{self.leader}/root/run/systemd/private").exists():
            return False
        return Path(f"/proc/{self.leader}/comm").read_text().strip() == "systemd"

    def _let_in(self) -> None:
        if not self.key.exists():
            argv = (self._keygen, "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(self.key))
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        public = self.key.with_suffix(".pub").read_bytes()
        for user in ("admin", "ops"):
            self.run(f"cat > /home/{user}/.ssh/authorized_keys; chown {user} /home/{user}/.ssh/*", stdin=public)
        self.run("chpasswd", stdin=f"ops:{self.password}\n".encode())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


def _only_child(process: int) -> int:
    """The id of a process' only child; 0 when it has none."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return 0
    return int(children[0]) if len(children) == 1 else 0
