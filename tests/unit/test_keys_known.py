"""Every identity that the configuration names."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pyrage
import pytest

from backends.archive import keys
from backends.archive.keys_known import known_identities
from backends.config.schema import Encryption
from backends.errors import KeyUnavailable
from backends.model import Secret


def made(path: Path, passphrase: str | None = None) -> str:
    """A new identity in a file; its recipient."""
    identity, recipient = keys.new_identity()
    keys.write_identity(path, identity, Secret(passphrase) if passphrase else None)
    return recipient


def printing(*lines: str) -> str:
    """A command that prints some lines."""
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(f'print({chr(10).join(lines)!r})')}"


def recipients(encryption: Encryption, **options: object) -> list[str]:
    return [known.recipient for known in known_identities(encryption, **options)]  # type: ignore[arg-type]


def test_the_current_ones_come_first(tmp_path: Path) -> None:
    own, old = made(tmp_path / "own"), made(tmp_path / "old")
    printed, also = keys.new_identity(), keys.new_identity()
    encryption = Encryption(
        identity=tmp_path / "own",
        identity_command=printing("# from the manager", printed[0].reveal(), also[0].reveal()),
        old_identities=(tmp_path / "old",),
    )
    found = known_identities(encryption)
    assert [known.recipient for known in found] == [own, printed[1], also[1], old]
    assert [known.old for known in found] == [False, False, False, True]
    assert [known.source for known in found] == [
        str(tmp_path / "own"),
        *["identity_command"] * 2,
        str(tmp_path / "old"),
    ]


def test_one_that_is_lost_is_no_fault_beside_another(tmp_path: Path) -> None:
    old = made(tmp_path / "old")
    said: list[str] = []
    encryption = Encryption(identity=tmp_path / "gone", identity_command="false", old_identities=(tmp_path / "old",))
    assert recipients(encryption, log=said.append) == [old]
    assert "gone is not there" in said[0]
    assert "identity_command ended with status 1" in said[1]
    with pytest.raises(KeyUnavailable, match="gone is not there"):
        known_identities(Encryption(identity=tmp_path / "gone", old_identities=(tmp_path / "gone too",)))
    with pytest.raises(KeyUnavailable, match="no identity is configured"):
        known_identities(Encryption())


@pytest.mark.parametrize(
    "command", ["false", "/does/not/exist", "'unbalanced", "  ", "true", "echo AGE-SECRET-KEY-1NO"]
)
def test_a_command_that_gives_no_identity(command: str) -> None:
    with pytest.raises(KeyUnavailable) as caught:
        known_identities(Encryption(identity_command=command))
    assert "AGE-SECRET-KEY-1NO" not in str(caught.value)


def test_a_command_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_COMMAND_SECONDS", 0.1)
    with pytest.raises(KeyUnavailable, match="did not run: TimeoutExpired"):
        known_identities(Encryption(identity_command="sleep 60"))


def test_a_command_runs_without_a_shell(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable):
        known_identities(Encryption(identity_command=f"echo hello > {tmp_path / 'made'}"))
    assert not (tmp_path / "made").exists()


def test_what_a_command_prints_shows_nowhere() -> None:
    identity, _ = keys.new_identity()
    wrong = identity.reveal()[:-1] + ("A" if identity.reveal()[-1] != "A" else "C")
    with pytest.raises(KeyUnavailable) as caught:
        known_identities(Encryption(identity_command=printing(wrong)))
    error: BaseException | None = caught.value
    while error is not None:
        assert "AGE-SECRET-KEY-1" not in str(error).replace("AGE-SECRET-KEY-1.", "")
        assert wrong not in repr(error)
        error = None if error.__suppress_context__ else error.__context__


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """age's own passphrases cost a second each; what is tested here is who is asked for them."""
    known: dict[bytes, tuple[bytes, str]] = {}

    def encrypt(data: bytes, passphrase: str) -> bytes:
        stored = b"age-encryption.org/v1 %d" % len(known)
        known[stored] = (data, passphrase)
        return stored

    def decrypt(stored: bytes, passphrase: str) -> bytes:
        data, right = known[stored]
        if passphrase != right:
            raise pyrage.DecryptError("wrong")
        return data

    monkeypatch.setattr(pyrage.passphrase, "encrypt", encrypt)
    monkeypatch.setattr(pyrage.passphrase, "decrypt", decrypt)


@pytest.mark.usefixtures("quick")
def test_a_passphrase_is_asked_for_once_where_it_opens_several(tmp_path: Path) -> None:
    both = [made(tmp_path / "own", "same"), made(tmp_path / "old", "same"), made(tmp_path / "older", "other")]
    asked: list[str] = []

    def ask(prompt: str) -> Secret | None:
        asked.append(prompt)
        return Secret("other" if "older" in prompt else "same")

    old = (tmp_path / "old", tmp_path / "older")
    assert recipients(Encryption(identity=tmp_path / "own", old_identities=old), ask=ask) == both
    assert asked == ["Passphrase of own", "Passphrase of older"]


@pytest.mark.usefixtures("quick")
def test_going_on_without_the_passphrase_of_an_old_one(tmp_path: Path) -> None:
    own, _ = made(tmp_path / "own"), made(tmp_path / "old", "forgotten")
    assert recipients(Encryption(identity=tmp_path / "own", old_identities=(tmp_path / "old",))) == [own]
