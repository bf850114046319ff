"""New keys: who can read afterwards, and that nothing is left between two states."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from backends.archive.keys import new_identity
from backends.archive.signing import load_signer
from backends.config.load import load
from backends.config.paths import Paths
from backends.config.save_keys import change_keys
from backends.config.schema import Config, Encryption
from backends.errors import ConfigurationError, KeyUnavailable
from backends.operations import keys_rotate
from backends.operations.keys_rotate import NewFiles, rotated, save, signing_values

OWN, NEW, COLLEAGUE, RECOVERY, NEXT = (new_identity()[1] for _ in range(5))
NOW = datetime(2026, 11, 23, tzinfo=UTC)
BEFORE = Encryption(recipients=(OWN, COLLEAGUE, RECOVERY), recovery=RECOVERY)


@pytest.mark.parametrize(
    ("own", "drop", "recovery", "after"),
    [
        ([OWN], [], None, [NEW, COLLEAGUE, RECOVERY]),
        ([OWN], [COLLEAGUE.upper()], None, [NEW, RECOVERY]),
        ([OWN], [], NEXT, [NEW, COLLEAGUE, NEXT]),
        ([OWN], [RECOVERY], NEXT, [NEW, COLLEAGUE, NEXT]),
        ([], [OWN], None, [NEW, COLLEAGUE, RECOVERY]),
        ([OWN, RECOVERY], [], None, [NEW, COLLEAGUE, RECOVERY]),
        ([], [], None, [NEW, OWN, COLLEAGUE, RECOVERY]),
    ],
    ids=["mine", "a-colleague", "recovery", "recovery-named", "dropped", "recovery-stays", "added"],
)
def test_who_reads_after_a_rotation(own: list[str], drop: list[str], recovery: str | None, after: list[str]) -> None:
    assert rotated(BEFORE, own, NEW, drop=drop, recovery=recovery) == after


@pytest.mark.parametrize(
    ("drop", "says"),
    [(RECOVERY, "that is the recovery recipient"), (NEXT, "is no recipient"), ("x", "no age recipient")],
    ids=["recovery", "unknown", "nonsense"],
)
def test_who_cannot_be_dropped(drop: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        rotated(BEFORE, [OWN], NEW, drop=[drop])


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "config.toml", tmp_path / "state", tmp_path / "cache")


def files_in(paths: Paths) -> set[str]:
    return {path.name for path in paths.config_file.parent.iterdir()}


def test_a_change_that_cannot_be_saved_leaves_nothing(paths: Paths) -> None:
    paths.config_file.write_text("# mine\n[hosts.a]\naddress = 'x'\nvaults = ['gone']\n")
    before = files_in(paths)
    with NewFiles() as files:
        recipient = keys_rotate.make_identity(files, paths.config_file.parent / "identity.age", None)
        files.signing_key(paths.config_file.parent / "signing.pem")
        files.page(paths.config_file.parent / "page.svg", "<svg/>")
        with pytest.raises(ConfigurationError):
            save(paths, {"recipients": [recipient]}, {}, files)
        assert files_in(paths) > before
    assert files_in(paths) == before


def test_a_file_that_was_there_is_not_removed_with_the_others(paths: Paths) -> None:
    page = paths.config_file.parent / "page.svg"
    page.write_text("precious")
    with NewFiles() as files:
        keys_rotate.make_identity(files, paths.config_file.parent / "identity.age", None)
        with pytest.raises(KeyUnavailable):
            files.page(page, "<svg/>")
    assert files_in(paths) == {"page.svg"}
    assert page.read_text() == "precious"


def test_comments_stay_and_both_tables_change_at_once(paths: Paths) -> None:
    paths.config_file.write_text("# mine\n[encryption]\nrecipients = []  # who\n\n[signers]\n# friends\nold = 'QUJD'\n")
    change_keys(paths.config_file, {"identity": "/x", "custody_confirmed_at": NOW}, {"root@box": "QUFB", "old": None})
    text = paths.config_file.read_text()
    for wanted in ("# mine", "recipients = []  # who", "# friends", '"root@box" = "QUFB"'):
        assert wanted in text
    config = load(paths.config_file)
    assert config.encryption.custody_confirmed_at == NOW
    assert config.signers == {"root@box": "QUFB"}
    change_keys(paths.config_file, {}, {"root@box": None})
    assert load(paths.config_file).signers == {}


def test_a_machine_gets_one_signing_key_and_keeps_it(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_rotate, "machine_name", lambda: "me@box")
    with NewFiles() as files:
        encryption, signers, public = signing_values(Config(), paths, files, anew=False, now=NOW)
        save(paths, encryption, signers, files)
    config = load(paths.config_file)
    assert config.signers == {"me@box": public}
    assert config.encryption.signing_key is not None
    assert load_signer(config.encryption.signing_key).public == public
    with NewFiles() as files:
        assert signing_values(config, paths, files, anew=False, now=NOW) == ({}, {}, public)

    with NewFiles() as files:
        encryption, signers, after = signing_values(config, paths, files, anew=True, now=NOW)
        save(paths, encryption, signers, files)
    assert after != public
    assert load(paths.config_file).signers == {"me@box": after, "me@box before 2026-11-23": public}


def test_a_lost_signing_key_is_replaced_only_when_a_new_one_is_asked_for(paths: Paths) -> None:
    config = Config(encryption=Encryption(signing_key=paths.config_file.parent / "gone.pem"))
    with NewFiles() as files:
        with pytest.raises(KeyUnavailable, match=r"gone\.pem"):
            signing_values(config, paths, files, anew=False, now=NOW)
        assert signing_values(config, paths, files, anew=True, now=NOW)[2]
    assert files_in(paths) == set()


def test_trusting_and_forgetting_a_signer(paths: Paths, tmp_path: Path) -> None:
    with NewFiles() as files:
        public, other = (files.signing_key(tmp_path / f"{number}.pem") for number in range(2))
    keys_rotate.trust(Config(), paths, "a colleague", f" {public} ")
    config = load(paths.config_file)
    assert config.signers == {"a colleague": public}
    keys_rotate.trust(config, paths, "a colleague", public)
    for name, key, says in (
        ("a colleague", other, "with another key"),
        ("somebody", public, "already, as a colleague"),
        ("somebody", "QUFB", "no public signing key"),
        ("", other, "needs a name"),
        ("\x1b[31m", other, "needs a name"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            keys_rotate.trust(config, paths, name, key)
    with pytest.raises(ConfigurationError, match="nobody named somebody"):
        keys_rotate.forget_signer(config, paths, "somebody")
    keys_rotate.forget_signer(config, paths, "a colleague")
    assert load(paths.config_file).signers == {}


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    (tmp_path / "identity.age").touch()
    (tmp_path / "identity-2.age").symlink_to("nowhere")
    assert keys_rotate.free_name(tmp_path / "identity.age") == tmp_path / "identity-3.age"
