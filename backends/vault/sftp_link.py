"""The connection of an SFTP vault: made when it is first needed, shared by threads, made again when it was lost."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from backends.config.schema import HostConfig, SftpVault
from backends.connection.address import parse_address
from backends.connection.login import Ask
from backends.connection.reach import Reached, Timeouts, Way
from backends.connection.ssh_config import SshTarget, load_ssh_config
from backends.connection.transport import WINDOW, ChannelRefused
from backends.errors import (
    ConfigurationError,
    ConnectionFailed,
    HostKeyChanged,
    HostKeyUnknown,
    LoginRefused,
    MastovaultError,
    VaultError,
)
from backends.untrusted import clean
from backends.vault.sftp_files import Files
from backends.vault.sftp_session import Lost, Session

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds to wait for an answer."""
CHANNELS = 4
"""Sessions at once on one connection; sshd's MaxSessions is 10, and others share the account."""
_PAUSES = (0.1, 1.0)
"""Seconds before the second and the third attempt of what was cut; each up to twice as long."""
_QUICK = 5.0
"""Seconds; a connection that failed sooner is worth a second attempt: sshd turns some away when many come at once."""
_LOOPBACK = re.compile(r"127\.[0-9.]+|::1|localhost(\.localdomain)?", re.IGNORECASE)


class VaultGone(VaultError):
    """The server of the vault cannot be reached, or does not let us in; nothing else can be asked either."""


class ServerKeyUnknown(VaultGone):
    """The server's key has not been accepted yet.

    Attributes:
        shown: the key, for `connection.host_keys.accept`.
    """

    def __init__(self, shown: HostKeyUnknown) -> None:
        super().__init__(
            shown.sentence,
            "Compare it with what `ssh-keygen -lf` says on the server's own console, then accept it: in the app, with"
            " --accept-key of `mastovault vault add`, or by connecting once with `sftp`.",
        )
        self.shown = shown


def ssh_settings(config: SftpVault) -> HostConfig:
    """What the vault says of its server, in the words of the connection room."""
    return HostConfig(
        address=config.address,
        identity_file=config.identity_file,
        known_hosts=config.known_hosts,
        password_command=config.password_command,
        key_passphrase_command=config.key_passphrase_command,
    )


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, as far as its text tells."""
    return bool(_LOOPBACK.fullmatch(host))


class SftpLink:
    """One SSH connection with a few SFTP sessions on it."""

    def __init__(
        self, name: str, config: SftpVault, *, patience: float = PATIENCE, timeouts: Timeouts | None = None
    ) -> None:
        """Remember where to connect to; nothing is asked yet.

        Args:
            name: the vault's name, for messages.
            config: its settings.
            patience: seconds to wait for an answer.
            timeouts: of the steps of connecting.
        """
        self._name = f"the vault {name}"
        self._config = config
        self._patience = patience
        self._timeouts = timeouts or Timeouts()
        self._lock = threading.RLock()  # a file that is forgotten gives its session back wherever Python notices
        self._reached: Reached | None = None
        self._open: list[Files] = []
        self._full = False
        self._failed: tuple[float, VaultGone] | None = None

    def call(self, work: Callable[[Files], T]) -> T:
        """Do something that may be done twice; again on a new connection when the connection was lost.

        Raises:
            VaultGone: it cannot be reached, or the connection breaks every time.
            Status: the server refused.
        """
        for pause in (*_PAUSES, None):
            try:
                with self.use() as files:
                    return work(files)
            except Lost as lost:
                if pause is None or lost.silent:
                    raise self.lost(lost) from None
                time.sleep(pause * random.uniform(1, 2))  # noqa: S311 - no secret
        raise AssertionError("unreachable")

    @contextmanager
    def use(self) -> Iterator[Files]:
        """A session for a while: the one that fewest use.

        Raises:
            VaultGone: it cannot be reached.
            Lost: from the work that is done with it.
        """
        files = self.take()
        try:
            yield files
        finally:
            self.give_back(files)

    def take(self) -> Files:
        """A session to work with; `give_back` it. Raises `VaultGone`."""
        asked = time.monotonic()
        with self._lock:
            silent = any(files.session.fell_silent for files in self._open)
            self._open = [files for files in self._open if files.session.alive]
            if silent and not self._open:
                self._drop()  # a connection on which nobody answers opens no further session either
            idle = min(self._open, key=lambda each: each.session.uses, default=None)
            if idle is None or (idle.session.uses and len(self._open) < CHANNELS and not self._full):
                idle = self._another(asked, idle)
            idle.session.uses += 1
            return idle

    def keep(self, files: Files) -> None:
        """Go on to use a session after `call` or `use`; `give_back` it."""
        with self._lock:
            files.session.uses += 1

    def give_back(self, files: Files) -> None:
        """One work less with a session."""
        with self._lock:
            files.session.uses -= 1

    def lost(self, lost: Lost) -> VaultGone:
        """The sentence for a session that ended in the middle of something."""
        return VaultGone(
            f"the connection to {self._name} was lost: {clean(str(lost), 300)}",
            "Try again; when it happens often, look at the network and at the server's own log of sshd.",
        )

    def target(self) -> SshTarget:
        """Where the address leads to, by ~/.ssh/config. Raises `ConfigurationError`."""
        return load_ssh_config().target(parse_address(self._config.address), ssh_settings(self._config))

    def is_local(self) -> bool:
        """Whether the server is this very machine, as far as the address tells."""
        try:
            target = self.target()
        except ConfigurationError:
            return False
        return is_loopback(target.host) and not target.jumps and not target.proxy_command

    def close(self) -> None:
        """Close the connection; the next work makes another one. Never raises."""
        with self._lock:
            self._drop()

    def _another(self, asked: float, instead: Files | None) -> Files:
        """One more session; when that cannot be had, the busy one that there is."""
        for last in (False, True):
            try:
                files = self._begin(self._connected(asked))
            except ChannelRefused as refused:
                if instead is not None:
                    self._full = True
                    return instead
                raise VaultGone(
                    f"{self._name} opens no session: {clean(refused.text, 200) or refused.code}",
                    "Raise MaxSessions in the server's sshd_config, or run fewer jobs at once.",
                ) from None
            except Lost as lost:
                if instead is not None and instead.session.alive:
                    self._full = True
                    return instead
                self._drop()
                if last:
                    raise VaultGone(
                        f"{self._name} cannot be used: {clean(str(lost), 300)}",
                        "Check that its sshd_config has a line like `Subsystem sftp internal-sftp`, and that a shell's"
                        " start-up files print nothing.",
                    ) from None
            else:
                self._open.append(files)
                return files
        raise AssertionError("unreachable")

    def _begin(self, reached: Reached) -> Files:
        """Open a channel and start SFTP on it. Raises `ChannelRefused`, `Lost`."""
        transport = reached.transport
        try:
            channel = transport.open("session", window=WINDOW, timeout=min(self._timeouts.channel, self._patience))
        except (EOFError, OSError) as error:
            raise Lost(clean(str(error), 100) or "it closed the connection") from None
        return Files(Session(channel, self._patience), str(transport.remote_version))

    def _connected(self, asked: float) -> Reached:
        if self._reached is not None and self._reached.transport.is_active():
            return self._reached
        if self._failed is not None and self._failed[0] >= asked:
            # Another thread tried while this one waited for the lock.
            raise self._failed[1]
        self._drop()
        try:
            self._reached = self._connect()
        except VaultGone as gone:
            self._failed = (time.monotonic(), gone)
            raise
        return self._reached

    def _connect(self) -> Reached:
        begun = time.monotonic()
        try:
            try:
                return self._go()
            except ConnectionFailed:
                if time.monotonic() - begun > _QUICK:
                    raise
                time.sleep(random.uniform(0.3, 0.6))  # noqa: S311 - no secret
                return self._go()
        except HostKeyUnknown as error:
            raise ServerKeyUnknown(error) from None
        except (HostKeyChanged, LoginRefused, ConnectionFailed, ConfigurationError) as error:
            raise _gone(error) from None

    def _go(self) -> Reached:
        nobody: Ask | None = None
        way = Way(self._name, ssh_settings(self._config), load_ssh_config(), nobody, self._timeouts)
        return way.go(parse_address(self._config.address))

    def _drop(self) -> None:
        """Let go of everything; under the lock."""
        for files in self._open:
            files.session.end(Lost("it was closed here"))
        self._open, self._full = [], False
        reached, self._reached = self._reached, None
        if reached is not None:
            with suppress(Exception):
                reached.close()


def _gone(error: MastovaultError) -> VaultGone:
    """The connection room's own words; where it says `host`, the settings are the vault's."""
    return VaultGone(error.sentence, error.next_step.replace("of the host", "of the vault"))
