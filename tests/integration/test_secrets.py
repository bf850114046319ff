"""Backing up the secrets: from a host's files into an encrypted vault, and the ways in which it can go wrong."""

from __future__ import annotations

import io
import json
import os
import secrets
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.archive.keys import load_identities, new_identity, write_identity
from backends.archive.manifest import Manifest
from backends.archive.reader import open_object
from backends.archive.writer import Snapshot, begin_snapshot
from backends.assets.base import BackupContext, Outcome
from backends.assets.secrets import HANDLER
from backends.config.schema import DirectoryVault as VaultConfig
from backends.errors import AssetFailed, Cancelled, DiscoveryFailed
from backends.mastodon.discovery import discover
from backends.mastodon.installation import Installation
from backends.model import Asset, Secret
from backends.progress import QuietJob
from backends.vault.base import Vault
from backends.vault.format import prepare
from backends.vault.open import open_vault
from tests.servers.mastodon_tree import Recorded, Tree, outsider
from tests.servers.need import need_root

BASE = secrets.token_hex(64)
ENV = f"LOCAL_DOMAIN=social.example\nSECRET_KEY_BASE={BASE}\nDB_HOST=/nowhere\nDB_PASS=hunter2\n"


class Job(QuietJob):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Case:
    """One host with one vault."""

    def __init__(self, tree: Tree, tmp_path: Path) -> None:
        self.tree = tree
        self.identity, self.recipient = new_identity()
        self.key_file = tmp_path / "identity.age"
        self.vault_path = tmp_path / "vault"
        self.vault_path.mkdir()
        write_identity(self.key_file, self.identity, None)
        self.vault: Vault = open_vault("v", VaultConfig(type="directory", path=self.vault_path))
        prepare(self.vault, [self.recipient])
        self.job = Job()

    def discover(self, connection: Recorded) -> Installation:
        return discover(connection, "social", self.tree.config())

    def begin(self) -> Snapshot:
        return begin_snapshot([self.vault], host="social", asset=Asset.SECRETS, run="r", recipients=[self.recipient])

    def back_up(self, previous: Manifest | None = None, installation: Installation | None = None) -> Outcome:
        """Back up without a commit, and remove what was written."""
        with self.tree.connect() as connection:
            found = installation or self.discover(connection)
            context = BackupContext(connection=connection, installation=found, job=self.job, previous=previous)
            writer = self.begin()
            try:
                return HANDLER.back_up(context, writer)
            finally:
                writer.discard()

    def commit(self) -> Manifest:
        with self.tree.connect() as connection:
            writer = self.begin()
            context = BackupContext(connection=connection, installation=self.discover(connection), job=self.job)
            return writer.commit(HANDLER.back_up(context, writer).facts)

    def open(self, manifest: Manifest) -> tarfile.TarFile:
        [entry] = manifest.objects
        identities = load_identities(self.key_file, lambda _: None)
        with open_object(self.vault, manifest, entry, identities) as stored:
            return tarfile.open(fileobj=io.BytesIO(stored.read()))


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Case]:
    with Tree(monkeypatch) as tree:
        yield Case(tree, tmp_path)


def test_what_is_stored_is_the_files_with_modes_and_owners(case: Case) -> None:
    root = case.tree.make(ENV)
    (root / ".env").write_text("EXTRA=1\n")
    (root / ".env").chmod(0o640)
    os.utime(root / ".env", (1_700_000_000, 1_700_000_000))
    manifest = case.commit()
    assert [entry.name for entry in manifest.objects] == ["environment.tar.age"]
    with case.open(manifest) as tar:
        members = {f"/{member.name}": member for member in tar.getmembers()}
        assert set(members) == {f"{root}/.env.production", f"{root}/.env"}
        stored = tar.extractfile(members[f"{root}/.env.production"])
        assert stored is not None
        assert stored.read().decode() == ENV
        env = members[f"{root}/.env"]
        assert (env.mode, env.mtime, env.uid) == (0o640, 1_700_000_000, os.geteuid())


def test_the_manifest_names_keys_and_shows_no_value(case: Case) -> None:
    case.tree.make(ENV)
    manifest = case.commit()
    facts = manifest.facts
    assert facts["keys"] == ["LOCAL_DOMAIN", "SECRET_KEY_BASE", "DB_HOST", "DB_PASS"]
    assert facts["mastodon_version"] == "4.6.3"
    assert facts["fingerprint_key"] == "SECRET_KEY_BASE"
    assert set(facts["key_digests"]) == set(facts["keys"])
    assert facts["files"][0]["mode"] == "0600"
    assert "VAPID_PRIVATE_KEY" in facts["missing_keys"]
    text = json.dumps(facts)
    for value in (BASE, "hunter2", "social.example"):
        assert value not in text
    assert not any(BASE.encode() in path.read_bytes() for path in case.vault_path.rglob("*") if path.is_file())


def test_unchanged_secrets_are_not_stored_again(case: Case) -> None:
    case.tree.make(ENV)
    manifest = case.commit()
    before = sorted(case.vault_path.rglob("*"))
    outcome = case.back_up(previous=manifest)
    assert outcome == Outcome(unchanged=manifest.id)
    assert sorted(case.vault_path.rglob("*")) == before


def test_the_probe_knows_the_copy(case: Case) -> None:
    root = case.tree.make(ENV)
    manifest = case.commit()
    with case.tree.connect() as connection:
        installation = case.discover(connection)
        seen = HANDLER.probe(connection, installation)
        assert (seen.present, seen.detail, seen.bytes) == (True, "4 keys in 1 file", len(ENV))
        assert seen.fingerprint == manifest.facts["fingerprint"]
        (root / ".env.production").write_text(ENV.replace("hunter2", "hunter3"))
        assert HANDLER.probe(connection, installation).fingerprint != seen.fingerprint


def test_what_changed_is_logged_by_name(case: Case) -> None:
    root = case.tree.make(ENV)
    manifest = case.commit()
    (root / ".env.production").write_text(ENV.replace("hunter2", "hunter3") + "NEW=1\n")
    assert case.back_up(previous=manifest).unchanged is None
    assert case.job.lines == [f"changed since {manifest.id}: DB_PASS, NEW"]


def test_a_changed_mode_is_a_change(case: Case) -> None:
    root = case.tree.make(ENV)
    manifest = case.commit()
    (root / ".env.production").chmod(0o644)
    assert case.back_up(previous=manifest).unchanged is None
    assert any("read by everyone" in text for text in case.back_up().facts["warnings"])


def test_without_a_strong_secret_every_copy_is_new(case: Case) -> None:
    case.tree.make("SECRET_KEY_BASE=changeme\nDB_HOST=/nowhere\n")
    manifest = case.commit()
    assert "fingerprint" not in manifest.facts
    assert "key_digests" not in manifest.facts
    assert case.back_up(previous=manifest).unchanged is None


def test_absent_settings_are_one_sentence(case: Case) -> None:
    case.tree.make(None)
    with case.tree.connect() as connection:
        installation = case.discover(connection)
        seen = HANDLER.probe(connection, installation)
        plan = HANDLER.plan_backup(connection, installation)
    sentence = f"{case.tree.root}/.env.production does not exist on social"
    assert (seen.present, seen.detail) == (False, sentence)
    assert plan.blocked == sentence
    with pytest.raises(AssetFailed) as caught:
        case.back_up()
    assert caught.value.sentence == sentence
    assert caught.value.next_step


def test_settings_that_are_gone_meanwhile_are_one_sentence(case: Case) -> None:
    root = case.tree.make(ENV)
    with case.tree.connect() as connection:
        installation = case.discover(connection)
    (root / ".env.production").unlink()
    with pytest.raises(AssetFailed, match="was there and is gone on social"):
        case.back_up(installation=installation)


def test_settings_that_grew_meanwhile_are_one_sentence(case: Case) -> None:
    root = case.tree.make(ENV)
    with case.tree.connect() as connection:
        installation = case.discover(connection)
    (root / ".env.production").write_bytes(b"A=1\n" * 2_500_000)
    with pytest.raises(AssetFailed, match=r"is 10\.0 MB large"):
        case.back_up(installation=installation)


def test_unreadable_settings_name_the_file_and_the_right(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    need_root("to log in as another user")
    root = case.tree.make(ENV)
    with case.tree.connect() as connection:
        installation = case.discover(connection)
    with outsider(monkeypatch, case.tree.config()) as connection, pytest.raises(AssetFailed) as caught:
        HANDLER.probe(connection, installation)
    assert caught.value.sentence.startswith(
        f"{root}/.env.production on social cannot be read by nobody (mode 0600, owner root:root)"
    )
    assert caught.value.next_step == 'Log in as root, or set `become = "sudo"` for this host.'


def test_an_unreadable_drop_in_is_left_out_and_said(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    need_root("to log in as another user")
    root = case.tree.make(ENV)
    (root / ".env.production").chmod(0o644)
    drop_in = case.tree.directory / "secret.conf"
    drop_in.write_text("[Service]\nEnvironment=A=1\n")
    drop_in.chmod(0o600)
    case.tree.unit(DropInPaths=str(drop_in))
    with case.tree.connect() as connection:
        installation = case.discover(connection)
    assert len(installation.secret_files) == 2
    with outsider(monkeypatch, case.tree.config()) as connection:
        writer = case.begin()
        context = BackupContext(connection=connection, installation=installation, job=case.job)
        outcome = HANDLER.back_up(context, writer)
        writer.discard()
    assert [text for text in case.job.warnings if str(drop_in) in text and text.endswith("it is not in the copy")]
    assert [file["path"] for file in outcome.facts["files"]] == [f"{root}/.env.production"]
    assert "fingerprint" not in outcome.facts


@pytest.mark.parametrize("content", [b"A=$(touch ran)\n", b"A=x\0y\n", b"A=\xff\xfe\n", b"A='open\n", b"\x1b[31mA=1\n"])
def test_odd_settings_are_stored_as_they_are(case: Case, content: bytes) -> None:
    root = case.tree.make(ENV.encode() + content)
    manifest = case.commit()
    with case.open(manifest) as tar:
        stored = tar.extractfile(tar.getmembers()[0])
        assert stored is not None
        assert stored.read() == ENV.encode() + content
    assert not (root / "ran").exists()
    assert not (case.tree.home / "ran").exists()


def test_the_plan_names_each_file_and_its_command(case: Case) -> None:
    root = case.tree.make(ENV)
    with case.tree.connect() as connection:
        plan = HANDLER.plan_backup(connection, case.discover(connection))
    assert [step.name for step in plan.steps] == ["read", "compare", "store"]
    assert plan.steps[0].command == f"head -c 1048576 -- {root}/.env.production"
    assert plan.blocked == ""


def test_another_kind_is_refused(case: Case) -> None:
    case.tree.program("podman", "echo 'ghcr.io/mastodon/mastodon:v4.6.3|masto-web-1|/srv/masto'")
    with pytest.raises(DiscoveryFailed, match="cannot back it up yet"):
        case.back_up()


def test_a_cancelled_job_writes_nothing(case: Case) -> None:
    case.tree.make(ENV)

    def stop() -> None:
        raise Cancelled

    case.job.check_cancelled = stop  # type: ignore[method-assign]
    before = sorted(case.vault_path.rglob("*"))
    with pytest.raises(Cancelled):
        case.back_up()
    assert sorted(case.vault_path.rglob("*")) == before


def test_secrets_of_the_environment_are_masked(case: Case) -> None:
    case.tree.make(ENV)
    with case.tree.connect() as connection:
        installation = case.discover(connection)
        told = " ".join(" ".join(command.argv) for command in connection.commands)
    assert installation.environment["DB_PASS"] == Secret("hunter2")
    assert "hunter2" not in repr(installation)
    assert "hunter2" not in told
