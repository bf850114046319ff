"""A small Debian on disk, made by debootstrap once and kept in the user's cache: what test machines are booted from.

`python -m tests.servers.debian_image` makes it ahead of the tests.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.servers.need import find, need, need_root, stop

FILES = Path(__file__).with_name("debian_files")
_SUITE = "bookworm"
_KEEP = 14 * 86400
"""Seconds until a tree that no recipe asks for any more is removed."""
_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "procps", "adduser", "curl"),
    *("postgresql", "redis-server", "python3-minimal", "python3-psycopg2", "age", "zstd"),
)
_TOOLS = ("debootstrap", "unshare", "nsenter", "setpriv", "mount", "pivot_root", "hostname", "findmnt")


def image() -> Path:
    """The tree's directory; made first where it is not there yet (a minute or two). Skips the test where none can be.

    It holds Debian's PostgreSQL and Redis, sshd, sudo, the users `mastodon`, `admin` (sudo without a password) and
    `ops` (sudo with one), and no Mastodon.
    """
    need_root("it boots a Debian in namespaces")
    need(*_TOOLS)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mastovault-tests"
    made = cache / f"debian-{_recipe()}"
    if made.is_dir():
        return made
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_dir():
            for older in cache.glob("debian-*"):
                # Another checkout may be booted from a tree of its own.
                if older.suffix == ".partial" or time.time() - older.stat().st_mtime > _KEEP:
                    shutil.rmtree(older)
            _make(made)
    return made


def _recipe() -> str:
    """What a tree depends on, as a name."""
    parts = (_SUITE, *_PACKAGES, (FILES / "finish.sh").read_text())
    return f"{_SUITE}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:12]}"


def _make(made: Path) -> None:
    draft = made.with_name(f"{made.name}.partial")
    # Whatever the packages mount or start while they are set up goes with these namespaces.
    apart = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
    mirror = _mirror()
    bootstrap = ("debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, str(draft))
    done = _run(*apart, *bootstrap, *([mirror] if mirror else []))
    if done.returncode:
        shutil.rmtree(draft, ignore_errors=True)
        stop(f"debootstrap cannot make a Debian here: {_last(done.stdout)}")
    shutil.copy(FILES / "finish.sh", draft / "finish.sh")
    done = _run(*apart, "chroot", str(draft), "sh", "/finish.sh")
    assert done.returncode == 0, done.stdout
    (draft / "finish.sh").unlink()
    draft.rename(made)


def _mirror() -> str:
    """The mirror that this machine's own apt uses, or "" for debootstrap's choice."""
    if find("apt-get") is None:
        return ""
    wanted = ("--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages")
    for line in _run("apt-get", "indextargets", *wanted).stdout.splitlines():
        if line.startswith("Debian|Debian|"):
            return line.rpartition("|")[2]
    return ""


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    """Both streams as one text; in the language and with the directories that package scripts expect."""
    env = {
        **{name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")},
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=env,
        check=False,
    )


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


if __name__ == "__main__":
    sys.stdout.write(f"{image()}\n")
