"""Running a command as another user, with the least right that does it: nothing, runuser, sudo, su."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from backends.config.schema import HostConfig
from backends.connection.login import Ask
from backends.connection.secret_commands import secret_from
from backends.connection.wrapper import valid_user
from backends.errors import BecomeRefused
from backends.model import Secret
from backends.untrusted import clean

# Root needs no password for either. runuser opens no session and asks no PAM of su; Alpine has only su.
_AS_ROOT = (
    "u=$1; shift; PATH=$PATH:/usr/sbin:/sbin; export PATH; "
    'if command -v runuser >/dev/null 2>&1; then exec runuser -u "$u" -- "$@"; '
    'else exec su -s /bin/sh -c "exec \\"\\$0\\" \\"\\$@\\"" -- "$u" "$@"; fi'
)
_SUDO_NEXT = "add to /etc/sudoers.d/mastovault (with visudo): {login} ALL=({user}) NOPASSWD: ALL"


@dataclass(frozen=True, slots=True)
class Right:
    """How one user becomes another: what stands before the command, and the password that it wants."""

    prefix: tuple[str, ...]
    password: Secret | None = None

    @property
    def checked(self) -> bool:
        """Whether it may come between a command and us, so that the end of the output needs proof."""
        return self.prefix[0] == "sudo"

    @property
    def line(self) -> bytes:
        """The password as a line for stdin."""
        return self.password.reveal().encode("utf-8", "surrogateescape") + b"\n" if self.password else b""


Attempt = Callable[[Right], str | None]
"""Tries a right with a command that does nothing; returns None when it works, else what was said instead."""


class Become:
    """Finds, once for each user, the way to run commands as that user on one host."""

    def __init__(self, name: str, login_user: str, host: HostConfig, ask: Ask | None, attempt: Attempt) -> None:
        self._name = name
        self._login = login_user
        self._host = host
        self._ask = ask
        self._attempt = attempt
        self._rights: dict[str, Right] = {}
        self._password: Secret | None = None
        self._lock = threading.Lock()

    def needed(self, user: str | None) -> bool:
        """Whether a command as this user needs more than the login gives."""
        return user is not None and user != self._login

    def right(self, user: str) -> Right:
        """The way to become `user`, found by trying and kept.

        Raises:
            BecomeRefused: there is none.
            ConfigurationError: `become_password_command` failed.
        """
        if not valid_user(user):
            raise BecomeRefused(f"{clean(user, 60)!r} is no name of a user", "correct the user of the host")
        with self._lock:
            if user not in self._rights:
                self._rights[user] = self._find(user)
            return self._rights[user]

    def _find(self, user: str) -> Right:
        if self._login == "root":
            return self._must(Right(_as_root(user)), user, f"check on the host that the user {user} exists")
        if self._host.become == "sudo":
            return self._sudo(user)
        if self._host.become == "su":
            return self._su(user)
        raise BecomeRefused(
            f"a command on {self._name} must run as {user}, but {self._login} logs in and become is none",
            f'set become = "sudo" for the host and {_SUDO_NEXT.format(login=self._login, user=user)}',
        )

    def _sudo(self, user: str) -> Right:
        silent = Right(("sudo", "-n", "-u", user, "--"))
        said = self._attempt(silent)
        if said is None:
            return silent
        hint = _SUDO_NEXT.format(login=self._login, user=user)
        # A refusal that no password changes: no sudo, no tty, not in sudoers. Everything else is worth a password.
        if "not found" in said or "must have a tty" in said:
            raise self._refused("sudo", user, said, hint)
        password = self._get_password(f"Password of {self._login} for sudo on {self._name}")
        if password is None:
            raise self._refused("sudo", user, said, f"set become_password_command, or {hint}")
        # -k makes sudo want the password each time, so that it never stays in the command's input.
        return self._with_password(Right(("sudo", "-S", "-k", "-p", "", "-u", user, "--"), password), user, hint)

    def _su(self, user: str) -> Right:
        via = self._host.become_user
        if user != via and via != "root":
            raise BecomeRefused(
                f"su on {self._name} gives {via}, which cannot become {user}", "set become_user of the host to root"
            )
        password = self._get_password(f"Password of {via} for su on {self._name}")
        if password is None:
            raise BecomeRefused(
                f"su on {self._name} needs the password of {via}",
                "set become_password_command of the host; the app asks for it where it has a screen",
            )
        prefix: tuple[str, ...] = ("su", "-s", "/bin/sh", "-c", 'exec "$0" "$@"', "--", via)
        if user != via:
            prefix += _as_root(user)
        return self._with_password(Right(prefix, password), user, f"check the password of {via} on the host")

    def _with_password(self, right: Right, user: str, next_step: str) -> Right:
        try:
            found = self._must(right, user, next_step)
        except BecomeRefused:
            # A wrong one is asked for again next time.
            self._password = None
            raise
        self._password = right.password
        return found

    def _must(self, right: Right, user: str, next_step: str) -> Right:
        said = self._attempt(right)
        if said is None:
            return right
        raise self._refused(right.prefix[0] if right.prefix[0] != "/bin/sh" else "runuser", user, said, next_step)

    def _refused(self, how: str, user: str, said: str, next_step: str) -> BecomeRefused:
        last = [line for line in said.splitlines() if line.strip()]
        why = clean(last[-1], 200).strip() if last else "it said nothing"
        return BecomeRefused(f"{how} on {self._name} did not let {self._login} become {user}: {why}", next_step)

    def _get_password(self, question: str) -> Secret | None:
        if self._password is not None:
            return self._password
        if self._host.become_password_command:
            return secret_from(self._host.become_password_command, f"become_password_command of {self._name}")
        return self._ask(question) if self._ask else None


def _as_root(user: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", _AS_ROOT, "sh", user)
