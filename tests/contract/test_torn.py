"""Whatever is missing from a snapshot, or has another length, is shown at the next look, and only then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.archive.layout import manifest_key, snapshot_prefix
from backends.archive.manifest import Manifest, ObjectEntry
from backends.catalog import Catalog, torn
from backends.errors import NotFound, VaultError
from backends.model import Asset, SnapshotInfo
from backends.vault.base import Vault
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from tests.contract.lagging import LaggingVault
from tests.servers.s3 import S3Server, rclone_server, s3_keys

__all__ = ["rclone_server", "s3_keys"]

SHARED = "hosts/social/media/packs/shared.tar.age"
NAMES = ("database.pgdump.zst.age", "globals.sql.zst.age")


def commit(vault: Vault, number: int, *, shared: bool = False) -> str:
    """A snapshot of two objects, or of one that is shared; returns its id."""
    at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=number)
    asset = Asset.MEDIA if shared else Asset.DATABASE
    made = f"social/{asset}/{at:%Y%m%dT%H%M%SZ}-{number:08x}"
    places = {"p.tar.age": SHARED} if shared else dict.fromkeys(NAMES, "")
    entries = [
        ObjectEntry(name=name, key=key, sha256="0" * 64, codecs=["age"], plain_bytes=5, bytes=5)
        for name, key in places.items()
    ]
    for entry in entries:
        if not (entry.key and _there(vault, entry.key)):
            vault.put_new(entry.key or snapshot_prefix(made) + entry.name, b"12345")
    manifest = Manifest(
        id=made,
        host="social",
        asset=asset,
        run=f"run{number}",
        started_at=at,
        finished_at=at,
        tool_version="0",
        recipients=["age1x"],
        objects=entries,
        facts={},
    )
    vault.put_new(manifest_key(made), manifest.model_dump_json().encode())
    return made


def _there(vault: Vault, key: str) -> bool:
    try:
        vault.size(key)
    except NotFound:
        return False
    return True


def look(catalog: Catalog, vault: Vault) -> dict[str, SnapshotInfo]:
    assert not catalog.refresh_vault(vault).error
    return {info.id: info for info in catalog.snapshots()}


@pytest.fixture
def vault(tmp_path: Path) -> DirectoryVault:
    made = DirectoryVault("one", tmp_path / "vault")
    prepare(made, ["age1x"])
    return made


@settings(max_examples=40, deadline=None)
@given(
    rounds=st.lists(
        st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 1)), st.sampled_from([None, 0, 3, 5, 9])),
        min_size=1,
        max_size=4,
    ),
    bound=st.sampled_from([200, 4]),
)
def test_what_is_shown_is_what_is_there(
    tmp_path_factory: pytest.TempPathFactory,
    rounds: list[dict[tuple[int, int], int | None]],
    bound: int,
) -> None:
    place = tmp_path_factory.mktemp("torn")
    vault = DirectoryVault("one", place / "vault")
    prepare(vault, ["age1x"])
    made = [commit(vault, number) for number in range(4)]
    catalog = Catalog(place / "cache")
    lengths = {(number, which): 5 for number in range(4) for which in (0, 1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torn, "_ASK", bound)
        for changes in rounds:
            for (number, which), length in changes.items():
                path = vault.path / snapshot_prefix(made[number]) / NAMES[which]
                path.unlink(missing_ok=True)
                if length is not None:
                    path.write_bytes(bytes(length))
            now = {**lengths, **changes}
            lengths = {key: -1 if length is None else length for key, length in now.items()}
            for _ in range(1 if bound > 100 else 4):
                seen = look(catalog, vault)
            bad = {made[number] for (number, _), length in lengths.items() if length != 5}
            assert {name for name, info in seen.items() if info.verify_failed} == bad
            assert all(bool(info.torn) == (name in bad) for name, info in seen.items())
            assert catalog.damaged() == ({"one": len(bad)} if bad else {})


def test_what_is_said(vault: DirectoryVault, tmp_path: Path) -> None:
    made = commit(vault, 1)
    catalog = Catalog(tmp_path / "cache")
    assert look(catalog, vault)[made].torn == ""
    path = vault.path / snapshot_prefix(made) / NAMES[0]
    path.write_bytes(b"123")
    info = look(catalog, vault)[made]
    assert info.torn == f"{NAMES[0]} has 3 bytes instead of 5"
    assert info.damaged == ("one",)
    path.unlink()
    path.with_name(NAMES[1]).unlink()
    path.write_bytes(b"12345")
    assert look(catalog, vault)[made].torn == f"{NAMES[1]} is missing"
    path.with_name(NAMES[1]).write_bytes(b"12345")
    info = look(catalog, vault)[made]
    assert (info.torn, info.damaged, info.verify_failed) == ("", (), False)


def test_a_shared_object_tears_all_that_need_it(vault: DirectoryVault, tmp_path: Path) -> None:
    made = [commit(vault, number, shared=True) for number in range(3)]
    other = commit(vault, 9)
    catalog = Catalog(tmp_path / "cache")
    look(catalog, vault)
    (vault.path / SHARED).unlink()
    seen = look(catalog, vault)
    assert {name for name, info in seen.items() if info.torn} == set(made)
    assert not seen[other].torn


def test_a_listing_that_lags_tears_nothing(tmp_path: Path, vault: DirectoryVault) -> None:
    lagging = LaggingVault(vault, 3600.0)
    catalog = Catalog(tmp_path / "cache")
    look(catalog, lagging)
    made = commit(lagging, 1)
    assert not catalog.refresh_vault(lagging, [made]).error
    (info,) = catalog.snapshots()
    assert (info.torn, info.verify_failed) == ("", False)


class Watched(DirectoryVault):
    """Counts what is asked for by its key; fails, or prunes, when it is told to."""

    asked: list[str]
    fails = False
    prunes: Path | None = None

    def size(self, key: str) -> int | None:
        self.asked.append(key)
        if self.prunes is not None:
            self.prunes.unlink(missing_ok=True)
        if self.fails:
            raise VaultError("the disk does not answer")
        return super().size(key)


@pytest.fixture
def watched(vault: DirectoryVault) -> Watched:
    made = Watched("one", vault.path)
    made.asked = []
    return made


def test_nothing_is_asked_while_all_is_well_and_nothing_twice(watched: Watched, tmp_path: Path) -> None:
    made = [commit(watched, number) for number in range(6)]
    catalog = Catalog(tmp_path / "cache")
    look(catalog, watched)
    assert watched.asked == []
    for name in made:
        (watched.path / snapshot_prefix(name) / NAMES[1]).unlink()
    look(catalog, watched)
    assert len(watched.asked) == 12, "each object, and whether its manifest is still there"
    look(catalog, watched)
    assert len(watched.asked) == 12


def test_who_cannot_be_asked_is_not_accused(watched: Watched, tmp_path: Path) -> None:
    made = commit(watched, 1)
    catalog = Catalog(tmp_path / "cache")
    look(catalog, watched)
    (watched.path / snapshot_prefix(made) / NAMES[1]).unlink()
    watched.fails = True
    assert not look(catalog, watched)[made].torn
    watched.fails = False
    assert look(catalog, watched)[made].torn


def test_a_prune_at_the_same_time_tears_nothing(watched: Watched, tmp_path: Path) -> None:
    made = commit(watched, 1)
    catalog = Catalog(tmp_path / "cache")
    look(catalog, watched)
    (watched.path / snapshot_prefix(made) / NAMES[1]).unlink()
    watched.prunes = watched.path / manifest_key(made)
    assert not look(catalog, watched)[made].torn
    assert look(catalog, watched) == {}


def test_in_a_bucket(rclone_server: S3Server, tmp_path: Path) -> None:
    vault = rclone_server.vault()
    prepare(vault, ["age1x"])
    made = [commit(vault, number) for number in range(3)]
    vault.delete(snapshot_prefix(made[1]) + NAMES[0])
    seen = look(Catalog(tmp_path / "cache"), vault)
    assert [seen[name].torn for name in made] == ["", f"{NAMES[0]} is missing", ""]
    vault.close()
