"""A vault of format 1 that is kept for ever: every reader reads it, and nobody changes it."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backends.archive.manifest import Manifest
from backends.archive.reader import object_key, open_object, read_sealed
from backends.catalog import Catalog
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.model import Asset, JobState, Trust
from backends.operations.choose import open_identities, points, resolve, sources
from backends.operations.extract import extract
from backends.operations.fleet import refresh_vaults
from backends.operations.verify import verify_host
from backends.restore.media_source import index
from backends.vault.directory import DirectoryVault
from tests import format_reader
from tests.servers.backup import WatchedJob

PLACE = Path(__file__).parents[1] / "fixtures" / "vault-1"
IDENTITY = PLACE / "test-key-identity.txt"
SUMS = "cfe4d8822e2228399295c0cd00dc70aa4959f8aa86bb2402dc14c16579bd8d19"
PUBLIC = (PLACE / "test-key-signer.pub").read_text().strip()


def config_of(vault: Path, **signers: str) -> Config:
    return Config.model_validate(
        {
            "encryption": {"identity": str(vault.parent / "identity.txt")},
            "vaults": {"kept": {"type": "directory", "path": str(vault)}},
            "signers": signers,
        }
    )


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    """A copy, as somebody has one who lost everything else."""
    shutil.copytree(PLACE / "vault", tmp_path / "vault")
    shutil.copy(IDENTITY, tmp_path / "identity.txt")
    (tmp_path / "identity.txt").chmod(0o600)
    return tmp_path / "vault"


def paths_of(vault: Path) -> Paths:
    return Paths(vault.parent / "config.toml", vault.parent / "state", vault.parent / "cache")


def catalog_of(config: Config, vault: Path) -> Catalog:
    made = Catalog(paths_of(vault).cache_dir, config.signers)
    refresh_vaults(config, made)
    return made


def test_its_bytes_never_change() -> None:
    lines = [line.split("  ") for line in (PLACE / "SHA256SUMS").read_text().splitlines()]
    listed = {name: digest for digest, name in lines}
    found = {
        str(path.relative_to(PLACE)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in PLACE.rglob("*")
        if path.is_file() and path.name != "SHA256SUMS"
    }
    assert found == listed
    assert hashlib.sha256((PLACE / "SHA256SUMS").read_bytes()).hexdigest() == SUMS
    assert sum(path.stat().st_size for path in PLACE.rglob("*") if path.is_file()) < 60_000


def test_the_catalogue_reads_it(vault: Path) -> None:
    config = config_of(vault, somebody=PUBLIC)
    catalog = catalog_of(config, vault)
    [status] = catalog.vaults()
    assert (status.error, status.unreadable, status.snapshots) == ("", 0, 6)
    known = catalog.snapshots()
    assert sorted(each.asset for each in known if catalog.trust(each) is Trust.TRUSTED) == sorted(Asset)
    assert {each.at.date().isoformat() for each in known if catalog.trust(each) is Trust.UNSIGNED} == {"2026-11-01"}
    by_asset = {asset: catalog.newest_trusted("social", asset) for asset in Asset}
    database, secrets = by_asset[Asset.DATABASE], by_asset[Asset.SECRETS]
    assert database is not None
    assert secrets is not None
    noon = datetime(2026, 11, 2, 12, 0, 0, 250000, tzinfo=UTC)
    assert (database.verified_at, database.drilled_at, database.drill_seconds) == (noon, noon, 1.5)
    assert (secrets.checked_at, secrets.fingerprint, database.opens_dump) == (noon, "0" * 64, True)
    good, bad = sorted(catalog.attempts(), key=lambda attempt: attempt.at)
    assert (good.state, bad.state, bad.error) == (JobState.DONE, JobState.FAILED, "the vault offsite has no room left")
    newest, _older = points(catalog, "social")
    assert set(newest.own) == set(Asset)


def test_our_reader_reads_every_object(vault: Path) -> None:
    held = DirectoryVault("kept", vault)
    identities = open_identities(config_of(vault))
    read = 0
    for info in catalog_of(config_of(vault), vault).snapshots():
        manifest, seal = read_sealed(held, info.id)
        assert (seal.sha256, seal.signer) == ("good", PUBLIC if info.at.day == 2 else "")
        for entry in manifest.objects:
            with open_object(held, manifest, entry, identities) as plain:
                data = plain.read()
            # what its host had compressed was counted as it came
            assert len(data) == entry.plain_bytes or (not entry.plain_sha256 and entry.codecs[0] == "zstd")
            read += 1
    assert read == 11


def test_it_verifies(vault: Path) -> None:
    config = config_of(vault, somebody=PUBLIC)
    chosen = resolve(config, catalog_of(config, vault), "social")
    snapshots = {asset: info.id for asset, info in chosen.items()}
    results = verify_host(config, paths_of(vault), "social", snapshots, dict.fromkeys(snapshots, WatchedJob()), "run-1")
    assert [result.state for result in results] == [JobState.DONE] * 4, results


def test_it_is_written_as_files(vault: Path, tmp_path: Path) -> None:
    config = config_of(vault, somebody=PUBLIC)
    chosen = resolve(config, catalog_of(config, vault), "social")
    snapshots = {asset: info.id for asset, info in chosen.items()}
    out = tmp_path / "out"
    results = extract(config, paths_of(vault), snapshots, out, dict.fromkeys(snapshots, WatchedJob()), "run-1")
    assert [result.state for result in results] == [JobState.DONE] * 4, results
    assert (out / "media/same.txt").read_bytes() == b"new and longer"
    assert (out / "media/custom_emojis/link.png").readlink() == Path("../accounts/private.png")
    assert "SECRET_KEY_BASE=made-up" in (out / "environment/home/mastodon/live/.env.production").read_text()


def test_another_reader_reads_the_same(vault: Path) -> None:
    """One that was written from docs/format.md alone."""
    tree = ast.parse(Path(format_reader.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in names if name.partition(".")[0] in {"backends", "tui", "tests"}}

    secret = IDENTITY.read_text().splitlines()[-1]
    theirs = {each.manifest["id"]: each for each in format_reader.snapshots(vault, secret)}
    config = config_of(vault)
    known = catalog_of(config, vault).snapshots()
    assert set(theirs) == {info.id for info in known}
    held, identities = DirectoryVault("kept", vault), open_identities(config)
    for info in known:
        manifest, seal = read_sealed(held, info.id)
        their = theirs[info.id]
        assert their.signer == seal.signer
        assert Manifest.model_validate(their.manifest) == manifest
        for entry in manifest.objects:
            with open_object(held, manifest, entry, identities) as plain:
                assert their.objects[entry.name] == plain.read()
            assert (vault / object_key(manifest, entry)).is_file()
    newest = max((info for info in known if info.asset is Asset.MEDIA), key=lambda info: info.at)
    [source] = sources(config, catalog_of(config, vault), {Asset.MEDIA: newest.id}).values()
    assert sorted(theirs[newest.id].files) == [entry.path for entry in index(source)]
    assert theirs[newest.id].files[b"media_attachments/caf\xe9.jpg"] == b"no UTF-8"
    assert theirs[newest.id].files[b"custom_emojis/link.png"] == b"../accounts/private.png"


def test_another_reader_notices_what_was_changed(vault: Path) -> None:
    secret = IDENTITY.read_text().splitlines()[-1]
    for path in sorted(path for path in vault.rglob("*") if path.name == "manifest.json" or path.suffix == ".age"):
        whole = path.read_bytes()
        path.write_bytes(whole[:-90] + bytes([whole[-90] ^ 1]) + whole[-89:])
        with pytest.raises((format_reader.Wrong, json.JSONDecodeError)):
            list(format_reader.snapshots(vault, secret))
        path.write_bytes(whole)
