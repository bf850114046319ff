"""Recipients and identity files."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.archive import keys
from backends.errors import ConfigurationError, KeyUnavailable
from backends.model import Secret
from tests.protected import protected


def nobody(prompt: str) -> Secret | None:
    return None


def never(prompt: str) -> Secret | None:
    raise AssertionError("must not ask")


@pytest.fixture
def made() -> tuple[Secret, str]:
    return keys.new_identity()


def test_an_identity_file_is_as_age_keygen_writes_it(tmp_path: Path, made: tuple[Secret, str]) -> None:
    identity, recipient = made
    path = tmp_path / "new" / "identity.age"
    keys.write_identity(path, identity, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first, second, third = path.read_text().splitlines()
    assert first.startswith("# created: 20")
    assert second == f"# public key: {recipient}"
    assert third == identity.reveal()
    assert [path.name for path in path.parent.iterdir()] == ["identity.age"]
    (loaded,) = keys.load_identities(path, never)
    assert str(loaded.to_public()) == recipient == keys.recipient_of(identity)


def test_an_existing_file_is_never_touched(tmp_path: Path, made: tuple[Secret, str]) -> None:
    path = tmp_path / "identity.age"
    path.write_text("precious")
    for passphrase in (None, Secret("x")):
        with pytest.raises(KeyUnavailable, match="exists and is not overwritten"):
            keys.write_identity(path, made[0], passphrase)
    assert path.read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_stick_without_links_works(tmp_path: Path, made: tuple[Secret, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*args: object, **kwargs: object) -> None:
        raise PermissionError(1, "no links")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "identity.age"
    keys.write_identity(path, made[0], None)
    assert keys.load_identities(path, never)
    with pytest.raises(KeyUnavailable):
        keys.write_identity(path, made[0], None)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_place_that_cannot_be_written(tmp_path: Path, made: tuple[Secret, str]) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(KeyUnavailable, match="could not be written"):
        keys.write_identity(tmp_path / "file" / "identity.age", made[0], None)


def test_a_passphrase_protects_it(tmp_path: Path, made: tuple[Secret, str]) -> None:
    path = tmp_path / "identity.age"
    keys.write_identity(path, made[0], Secret("correct horse"))
    assert b"AGE-SECRET" not in path.read_bytes()
    asked: list[str] = []

    def ask(prompt: str) -> Secret | None:
        asked.append(prompt)
        return Secret("correct horse")

    (loaded,) = keys.load_identities(path, ask)
    assert str(loaded.to_public()) == made[1]
    assert asked == ["Passphrase of identity.age"]


@pytest.fixture
def guarded(tmp_path: Path, made: tuple[Secret, str]) -> Path:
    """An identity file whose passphrase is `correct horse`."""
    path = tmp_path / "identity.age"
    path.write_bytes(protected(made[0].reveal().encode(), "correct horse"))
    path.chmod(0o600)
    return path


def test_without_its_passphrase_it_does_not_open(guarded: Path) -> None:
    assert keys.load_identities(guarded, lambda prompt: Secret("correct horse"))
    with pytest.raises(KeyUnavailable, match="nobody was there"):
        keys.load_identities(guarded, nobody)
    with pytest.raises(KeyUnavailable, match="does not open") as caught:
        keys.load_identities(guarded, lambda prompt: Secret("battery staple"))
    assert "battery" not in str(caught.value)


def test_a_command_gives_its_passphrase(guarded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = f"{sys.executable} -c \"print('correct horse')\""
    monkeypatch.setenv(keys.PASSPHRASE_COMMAND, command)
    assert keys.load_identities(guarded, never)
    for bad in ("false", "/does/not/exist", "'unbalanced"):
        monkeypatch.setenv(keys.PASSPHRASE_COMMAND, bad)
        with pytest.raises(KeyUnavailable, match=keys.PASSPHRASE_COMMAND):
            keys.load_identities(guarded, never)


def test_a_damaged_protected_file_is_said(guarded: Path) -> None:
    guarded.write_bytes(guarded.read_bytes()[:-5])
    with pytest.raises(KeyUnavailable):
        keys.load_identities(guarded, lambda prompt: Secret("correct horse"))


def test_several_identities_in_one_file(tmp_path: Path, made: tuple[Secret, str]) -> None:
    second, _ = keys.new_identity()
    path = tmp_path / "identity.age"
    path.write_text(f"# mine\n\n{made[0].reveal()}\r\n  {second.reveal()}\n")
    path.chmod(0o600)
    assert len(keys.load_identities(path, never)) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no identity"),
        (b"# only a comment\n", "holds no identity"),
        (b"AGE-SECRET-KEY-1NONSENSE\n", "no X25519 identity"),
        (b"\xff\xfe\n", "no X25519 identity"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\n", "armored"),
        (b"x" * 100_000, "no identity file"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "identity.age"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyUnavailable, match=says) as caught:
        keys.load_identities(path, nobody)
    assert "NONSENSE" not in str(caught.value)
    assert caught.value.exit_code == 12


def test_a_file_that_is_absent_or_open_to_others(tmp_path: Path, made: tuple[Secret, str]) -> None:
    path = tmp_path / "identity.age"
    with pytest.raises(KeyUnavailable, match="is not there"):
        keys.load_identities(path, never)
    keys.write_identity(path, made[0], None)
    path.chmod(0o640)
    with pytest.raises(KeyUnavailable, match="read by others") as caught:
        keys.load_identities(path, never)
    assert "chmod 600" in caught.value.next_step
    with pytest.raises(KeyUnavailable):
        keys.load_identities(tmp_path, never)


def test_recipients_have_one_spelling(made: tuple[Secret, str]) -> None:
    _, recipient = made
    assert keys.normal_recipients([recipient, f"  {recipient.upper()} "]) == [recipient]
    assert len(keys.parse_recipients([recipient, recipient.upper()])) == 1
    parsed = keys.parse_recipients([recipient])
    assert pyrage.encrypt(b"x", parsed)


@pytest.mark.parametrize("text", ["", "age1", "age1" + "q" * 58, "ssh-ed25519 AAAA", "\x1b[31m", "ä"])
def test_what_is_no_recipient(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no age recipient") as caught:
        keys.parse_recipients([text])
    assert "\x1b" not in caught.value.sentence


def test_an_identity_in_place_of_a_recipient_is_not_repeated(made: tuple[Secret, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        keys.parse_recipients([made[0].reveal().lower()])
    assert made[0].reveal() not in str(caught.value).upper()


@given(st.text(max_size=100))
def test_any_text_as_recipient(text: str) -> None:
    with pytest.raises(ConfigurationError):
        keys.parse_recipients([text])


def test_no_identity_shows_in_an_error() -> None:
    with pytest.raises(KeyUnavailable) as caught:
        keys.recipient_of(Secret("AGE-SECRET-KEY-1NONSENSE"))
    assert "NONSENSE" not in str(caught.value)
    assert caught.value.__suppress_context__
