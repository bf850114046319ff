"""Logging in: agent, key files, encrypted keys, and a password only where there is somebody or something to give it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.agent import AgentSSH
from paramiko.ssh_exception import AuthenticationException, BadAuthenticationType, SSHException

from backends.config.schema import HostConfig
from backends.connection.key_files import KeyFile, read_key_file
from backends.connection.secret_commands import secret_from
from backends.connection.ssh_config import SshTarget
from backends.errors import ConnectionFailed, LoginRefused
from backends.model import Secret
from backends.untrusted import clean

Ask = Callable[[str], Secret | None]
_AGENT_TIMEOUT = 60.0
"""Seconds; the agent may ask its user to confirm, or to touch a key."""
_INTERACTIVE_ROUNDS = 5


@dataclass(slots=True)
class Login:
    """One attempt to log in, and what was tried so far."""

    name: str
    transport: paramiko.Transport
    target: SshTarget
    host: HostConfig | None
    """The host's own settings; None for a host on the way, where only keys are used."""
    ask: Ask | None
    tried: list[str] = field(default_factory=list)
    methods: tuple[str, ...] = ()
    advice: str = ""

    def run(self) -> None:
        """Log in.

        Raises:
            LoginRefused: nothing that was tried was accepted.
            ConfigurationError: a `*_command` failed.
            ConnectionFailed: the connection was lost on the way.
        """
        with contextlib.ExitStack() as stack:
            try:
                self._ask_for_methods()
                if self._by_keys(stack) or self._by_password():
                    return
            except BadAuthenticationType as error:
                self.methods = tuple(error.allowed_types)
            except (SSHException, EOFError, OSError) as error:
                if not self.transport.is_active() and not self.tried:
                    raise ConnectionFailed(
                        f"{self.name} closed the connection while logging in: {clean(str(error), 200)}",
                        "look at the server's own log of sshd",
                    ) from None
                if not self.transport.is_active():
                    self.advice = "the server had enough of attempts; name the right key with identity_file"
        raise self._refused()

    def _ask_for_methods(self) -> None:
        try:
            self.transport.auth_none(self.target.user)
            self.tried.append("no authentication")
        except BadAuthenticationType as error:
            self.methods = tuple(error.allowed_types)

    def _by_keys(self, stack: contextlib.ExitStack) -> bool:
        if self.transport.is_authenticated():
            return True
        if "publickey" not in self.methods:
            return False
        files = [found for path in self.target.identity_files if (found := self._key_file(path)) is not None]
        agent = stack.enter_context(_agent_keys(self.target.agent_socket))
        wanted = {file.public: file for file in files if file.public}
        held = {key.asbytes() for key in agent}
        in_order = sorted(agent, key=lambda key: key.asbytes() not in wanted)
        for key in in_order:
            if self.target.identities_only and key.asbytes() not in wanted:
                continue
            self.tried.append(f"key {clean(key.comment, 60) or key.get_name()} of the agent")
            if self._offer(key):
                return True
        left = [file for file in files if file.public not in held]
        return any(self._by_file(file) for file in sorted(left, key=lambda file: file.encrypted))

    def _key_file(self, path: Path) -> KeyFile | None:
        try:
            return read_key_file(path)
        except OSError as error:
            if self.target.identities_named:
                self.tried.append(f"{clean(str(path), 100)} (cannot be read: {error.strerror})")
            return None

    def _by_file(self, file: KeyFile) -> bool:
        shown = clean(str(file.path), 100)
        passphrase: Secret | None = None
        if file.encrypted:
            passphrase = self._passphrase(shown)
            if passphrase is None:
                self.tried.append(f"{shown} (encrypted, and no passphrase was given)")
                self.advice = (
                    f"load {shown} into ssh-agent with ssh-add, or set key_passphrase_command of the host; "
                    "the app asks for it where it has a screen"
                )
                return False
        try:
            key = paramiko.PKey.from_path(file.path, passphrase.reveal().encode() if passphrase else None)  # type: ignore[arg-type]
        except (ValueError, TypeError, SSHException, UnsupportedAlgorithm, OSError) as error:
            wrong = "its passphrase is wrong" if file.encrypted else f"cannot be used: {clean(str(error), 100)}"
            self.tried.append(f"{shown} ({wrong})")
            return False
        self.tried.append(f"key {shown}")
        return self._offer(key)

    def _passphrase(self, shown: str) -> Secret | None:
        if self.host is not None and self.host.key_passphrase_command:
            return secret_from(self.host.key_passphrase_command, f"key_passphrase_command of {self.name}")
        return self.ask(f"Passphrase of the key {shown} for {self.name}") if self.ask else None

    def _offer(self, key: paramiko.PKey) -> bool:
        try:
            further = self.transport.auth_publickey(self.target.user, key)
        except BadAuthenticationType as error:
            self.methods = tuple(error.allowed_types)
            return False
        except AuthenticationException:
            if not self.transport.is_active():
                raise
            return False
        return self._go_on(further)

    def _go_on(self, further: Sequence[str]) -> bool:
        """Whether we are in; when the key was but the first of two proofs, try the second."""
        if self.transport.is_authenticated():
            return True
        self.methods = tuple(further)
        return self._by_password()

    def _by_password(self) -> bool:
        offered = [method for method in ("password", "keyboard-interactive") if method in self.methods]
        if not offered or self.host is None or not (self.host.password_command or self.ask):
            return False
        password: Secret | None
        if self.host.password_command:
            password = secret_from(self.host.password_command, f"password_command of {self.name}")
        elif self.ask is not None and "password" in offered:
            password = self.ask(f"Password of {self.target.user} on {self.name}")
        else:
            # The server says what it wants to know; it may be a code rather than a password.
            password = None
        if password is not None and "password" in offered:
            self.tried.append("password")
            try:
                if self._go_on(self.transport.auth_password(self.target.user, password.reveal(), fallback=False)):
                    return True
            except AuthenticationException:
                return False
        if "keyboard-interactive" not in self.methods:
            return False
        self.tried.append("keyboard-interactive")
        return self._interactive(password)

    def _interactive(self, password: Secret | None) -> bool:
        rounds = 0

        def answer(_title: str, _instructions: str, fields: list[tuple[str, bool]]) -> list[str]:
            nonlocal password, rounds
            rounds += 1
            if rounds > _INTERACTIVE_ROUNDS:
                raise SSHException("the server asks without end")
            answers = []
            for prompt, echo in fields:
                secret = password if not echo else None
                password = None if not echo else password
                if secret is None and self.ask is not None:
                    secret = self.ask(f"{self.name}: {clean(prompt, 200).strip().rstrip(':') or 'answer'}")
                answers.append(secret.reveal() if secret else "")
            return answers

        try:
            return self._go_on(self.transport.auth_interactive(self.target.user, answer))
        except AuthenticationException:
            return False

    def _refused(self) -> LoginRefused:
        user = clean(self.target.user, 64)
        tried = ", ".join(dict.fromkeys(self.tried)) or "nothing, for there was no key and no password to offer"
        accepts = ", ".join(clean(method, 40) for method in self.methods)
        accepts = f"; the server accepts {accepts}" if accepts else ""
        return LoginRefused(
            f"{self.name} did not let {user} in; tried: {tried}{accepts}",
            self.advice
            or f"check with `ssh {user}@{clean(self.target.host, 200)}`; then set identity_file or password_command of "
            "the host, or load the key into ssh-agent",
        )


@contextlib.contextmanager
def _agent_keys(path: str | None) -> Iterator[Sequence[paramiko.AgentKey]]:
    """The keys of the agent behind a socket; none when there is no agent or it does not speak."""
    if path is None:
        yield ()
        return
    agent = AgentSSH()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_AGENT_TIMEOUT)
        try:
            connection.connect(path)
            agent._connect(connection)  # type: ignore[attr-defined]
        except (OSError, SSHException, ValueError):
            yield ()
            return
        yield agent.get_keys()
