"""One tree of errors; each carries one sentence for the user and the next step.

The exit codes are those of docs/commands.md: 1 failed, 2 usage or configuration, 11 locked, 12 key, 130 interrupted.
"""

from __future__ import annotations

from typing import ClassVar, Self


class MastovaultError(Exception):
    """Anything that went wrong in a way we foresaw.

    Args:
        sentence: what happened, one sentence, safe to show (already cleaned, no secret in it).
        next_step: what the user can do about it.
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, sentence: str, next_step: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.next_step = next_step

    def reword(self, sentence: str, next_step: str | None = None) -> Self:
        """Say the same fault with what became of it; the kind and the exit code stay."""
        self.args = (sentence,)
        self.sentence = sentence
        self.next_step = self.next_step if next_step is None else next_step
        return self


class ConfigurationError(MastovaultError):
    """The configuration file, or how the command was called, is wrong."""

    exit_code = 2


class KeyUnavailable(MastovaultError):
    """An encryption key is missing or wrong."""

    exit_code = 12


class Cancelled(MastovaultError):
    """The operator asked for the work to stop."""

    exit_code = 130

    def __init__(self, sentence: str = "cancelled", next_step: str = "") -> None:
        super().__init__(sentence, next_step)


class ConnectionFailed(MastovaultError):
    """The host could not be reached, or the connection was lost."""

    retryable = True


class LoginRefused(MastovaultError):
    """The host answered but did not let us in."""


class HostKeyUnknown(MastovaultError):
    """The host's key has not been accepted yet.

    Attributes:
        fingerprint: `SHA256:...` of the key the host showed.
        key_type: for example `ssh-ed25519`.
        key_base64: the public key itself, for known_hosts.
    """

    def __init__(self, sentence: str, next_step: str, *, fingerprint: str, key_type: str, key_base64: str) -> None:
        super().__init__(sentence, next_step)
        self.fingerprint = fingerprint
        self.key_type = key_type
        self.key_base64 = key_base64


class HostKeyChanged(MastovaultError):
    """The host shows another key than the one that was accepted; there is no way around it in the app."""


class BecomeRefused(MastovaultError):
    """sudo or su did not grant the right that a command needs."""


class CommandFailed(MastovaultError):
    """A command on a host ended with a status that means failure.

    Attributes:
        status: its exit status; None when it was ended by a signal or the connection.
        stderr: the cleaned end of what it said.
    """

    def __init__(self, sentence: str, next_step: str = "", *, status: int | None = None, stderr: str = "") -> None:
        super().__init__(sentence, next_step)
        self.status = status
        self.stderr = stderr


class DiscoveryFailed(MastovaultError):
    """No Mastodon was found, or what was found cannot be read."""


class AssetFailed(MastovaultError):
    """An asset could not be backed up, checked or restored."""


class VaultError(MastovaultError):
    """A vault could not be read or written."""


class VaultFull(VaultError):
    """A vault has no room left."""


class VaultDenied(VaultError):
    """A vault answered that these credentials may not do this; appending may still be allowed."""


class VaultStalled(VaultError):
    """A vault neither answers nor fails: nothing more is asked of it in this run, for that would hang, too."""


class LeaseLost(VaultError):
    """Another run took over a lease that had not been renewed in time."""


class VaultFormatTooNew(VaultError):
    """A vault was written by a newer Mastovault."""


class AlreadyExists(VaultError):
    """An object that must be new is already there."""


class NotFound(VaultError):
    """An object that was asked for is not in the vault."""


class Damaged(VaultError):
    """Stored bytes are not what the manifest says."""


class Locked(MastovaultError):
    """Another run is at work on the same asset."""

    exit_code = 11
