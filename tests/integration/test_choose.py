"""What the operator types, and the snapshots that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.catalog import Catalog
from backends.errors import ConfigurationError, Damaged, KeyUnavailable, MastovaultError
from backends.lab.lab import Lab
from backends.model import Asset
from backends.operations.choose import openable, points, resolve, sources
from tests.restore_world import Restores
from tests.runs_world import World

NEVER = "19990101T000000Z-00000000"


@pytest.fixture(scope="module")
def social(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Restores:
    made = Restores(World(lab, tmp_path_factory.mktemp("choose")))
    made.back_up(run="first-night")
    made.back_up(Asset.DATABASE, Asset.SECRETS, run="second-night")
    return made


def test_a_point_is_completed_with_what_was_good_at_its_time(social: Restores) -> None:
    catalog = Catalog(social.world.paths.cache_dir)
    newest, first = points(catalog, "social")
    assert set(newest.own) == {Asset.DATABASE}, "unchanged settings are not copied again"
    assert list(newest.snapshots) == list(Asset)
    assert newest.older[Asset.MEDIA] == first.own[Asset.MEDIA]
    assert newest.at > first.at
    assert set(first.own) == set(Asset)
    assert first.older == {}


def test_everything_that_can_be_typed(social: Restores) -> None:
    config, catalog = social.world.config, Catalog(social.world.paths.cache_dir)
    newest, first = points(catalog, "social")
    database = newest.snapshots[Asset.DATABASE]
    assert resolve(config, catalog, "social") == newest.snapshots
    assert resolve(config, catalog, "social/database") == {Asset.DATABASE: database}
    assert resolve(config, catalog, "social/database/latest") == {Asset.DATABASE: database}
    assert resolve(config, catalog, database.id) == {Asset.DATABASE: database}
    assert resolve(config, catalog, database.id[-8:]) == {Asset.DATABASE: database}
    assert resolve(config, catalog, first.run) == first.snapshots


@pytest.mark.parametrize(
    "text", ["", "nobody", "social/soup", "social/database/19990101T000000Z-00000000", "zzz", "art"]
)
def test_what_names_nothing_says_so(social: Restores, text: str) -> None:
    with pytest.raises(ConfigurationError, match="names no snapshot"):
        resolve(social.world.config, Catalog(social.world.paths.cache_dir), text)


def test_an_end_that_two_have_asks_for_more(social: Restores) -> None:
    with pytest.raises(ConfigurationError, match="more than one"):
        resolve(social.world.config, Catalog(social.world.paths.cache_dir), "night")


def test_a_copy_that_is_gone_from_one_vault_is_read_from_the_other(social: Restores) -> None:
    catalog = Catalog(social.world.paths.cache_dir)
    chosen = resolve(social.world.config, catalog, "social/secrets")
    [manifest] = social.world.vaults["local"].glob(f"hosts/{chosen[Asset.SECRETS].id}/manifest.json")
    kept = manifest.read_bytes()
    manifest.unlink()
    try:
        found = sources(social.world.config, catalog, {Asset.SECRETS: chosen[Asset.SECRETS].id})
    finally:
        manifest.write_bytes(kept)
    source = found[Asset.SECRETS]
    assert [vault.name for vault in source.vaults] == ["offsite"]
    openable(source)


def test_another_identity_is_known_before_anything_begins(social: Restores, tmp_path: Path) -> None:
    from backends.archive.keys import new_identity, write_identity

    catalog = Catalog(social.world.paths.cache_dir)
    chosen = resolve(social.world.config, catalog, "social/secrets")
    identity, _ = new_identity()
    write_identity(tmp_path / "other.age", identity, None)
    config = social.world.config
    other = config.model_copy(
        update={"encryption": config.encryption.model_copy(update={"identity": tmp_path / "other.age"})}
    )
    found = sources(other, catalog, {Asset.SECRETS: chosen[Asset.SECRETS].id})
    with pytest.raises(KeyUnavailable, match="no identity at hand opens"):
        openable(found[Asset.SECRETS])


def test_without_an_identity_nothing_can_be_read(social: Restores) -> None:
    config = social.world.config
    none = config.model_copy(update={"encryption": config.encryption.model_copy(update={"identity": None})})
    with pytest.raises(KeyUnavailable, match="no identity is configured"):
        sources(none, Catalog(social.world.paths.cache_dir), {Asset.SECRETS: f"social/secrets/{NEVER}"})


def test_damaged_bytes_are_given_up_one_vault_at_a_time(social: Restores) -> None:
    catalog = Catalog(social.world.paths.cache_dir)
    chosen = resolve(social.world.config, catalog, "social/secrets")
    [source] = sources(social.world.config, catalog, {Asset.SECRETS: chosen[Asset.SECRETS].id}).values()
    assert source.give_up_copy(Damaged("flipped", "Use another copy.")) is True
    assert source.bad == {"local": "flipped"}
    assert source.give_up_copy(Damaged("flipped", "Use another copy.")) is False
    entry = source.entry("environment.tar")
    assert entry is not None
    with source.open(entry) as stream:
        assert stream.read()
    with pytest.raises(MastovaultError):
        sources(social.world.config, catalog, {Asset.SECRETS: f"social/secrets/{NEVER}"})
