"""The lab's empty host: servers of its own that a restore can fill, no settings, and nothing to be alarmed about."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.config.load import load
from backends.connection.open import open_connection
from backends.errors import ConfigurationError
from backends.lab.host import LabHost
from backends.lab.lab import Lab
from backends.mastodon.discovery import discover
from backends.model import Asset, AssetObservation, HostState, Level, utc_now
from backends.operations.fleet import load_fleet
from backends.operations.fleet_words import EMPTY
from backends.operations.observe import observe_host, without_data


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("spare"), hosts=1, rows=40, services=True, spare=True) as running:
        yield running


@pytest.fixture(scope="module")
def spare(lab: Lab) -> LabHost:
    return lab.hosts["spare"]


def run(host: LabHost, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env=dict(host.ssh.environment), capture_output=True, text=True, timeout=30, check=False
    )


def test_the_login_user_is_superuser_over_the_socket(lab: Lab, spare: LabHost) -> None:
    config = load(lab.config_file).hosts["spare"]
    place = ("-h", str(config.database_host), "-p", str(config.database_port))
    ask = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
    assert run(spare, "psql", "-XAtw", *place, "-d", "postgres", "-c", ask).stdout == "t\n"
    others = run(spare, "psql", "-XAtw", *place, "-d", "postgres", "-U", "postgres", "-c", ask)
    assert "no password" in others.stderr
    databases = spare.postgres.run_sql("SELECT datname FROM pg_database WHERE NOT datistemplate")
    assert databases == "postgres\n"
    assert "mastodon" not in spare.postgres.run_sql("SELECT rolname FROM pg_roles")
    assert spare.postgres.port != lab.postgres.port


def test_code_and_units_are_there_and_nothing_else(lab: Lab, spare: LabHost) -> None:
    assert not (spare.root / ".env.production").exists()
    assert not list((spare.root / "public/system").iterdir())
    social = lab.hosts["social"].root
    for path in ("lib/mastodon/version.rb", "db/migrate", "bin/tootctl"):
        assert (spare.root / path).exists()
    assert [path.name for path in sorted(spare.root.glob("db/*/*"))] == [
        path.name for path in sorted(social.glob("db/*/*"))
    ]
    shown = run(spare, "systemctl", "show", "-p", "ActiveState,UnitFileState", "mastodon-web").stdout
    assert shown == "UnitFileState=enabled\nActiveState=inactive\n"
    assert run(spare, "systemctl", "is-active", "redis-server").stdout == "active\n"
    with spare.redis.client() as client:
        assert client.dbsize() == 0


def test_the_app_finds_it_empty_and_quiet(lab: Lab, spare: LabHost) -> None:
    from backends.catalog import Catalog

    config = load(lab.config_file)
    with open_connection("spare", config.hosts["spare"]) as connection:
        found = discover(connection, "spare", config.hosts["spare"])
    assert found.database is not None
    assert (found.database.host, found.database.port) == (spare.database.host, spare.database.port)
    assert found.redis[0].port == spare.redis.port
    assert found.version == "4.7.4"
    seen = observe_host("spare", config, None, utc_now())
    assert seen.state is HostState.ONLINE
    assert not any(each.present for each in seen.assets)
    catalog = Catalog(lab.paths.cache_dir)
    catalog.save_observation(seen)
    fleet = load_fleet(config, catalog, utc_now())
    rows = [row for row in fleet.assets if row.host == "spare"]
    assert [(row.level, row.score, row.state) for row in rows] == [(Level.OK, 0, EMPTY)] * 4
    # Whatever is known, even a little, makes it a host like any other.
    data = tuple(dataclasses.replace(each, detail="something") for each in seen.assets)
    catalog.save_observation(dataclasses.replace(seen, assets=data))
    again = [row for row in load_fleet(config, catalog, utc_now()).assets if row.host == "spare"]
    assert {row.level for row in again} == {Level.UNKN}


def test_doubt_counts_as_data(lab: Lab) -> None:
    config = load(lab.config_file)
    with open_connection("spare", config.hosts["spare"]) as connection:
        found = discover(connection, "spare", config.hosts["spare"])
    nothing = tuple(AssetObservation(asset=asset, present=asset is not Asset.SECRETS) for asset in Asset)
    empty = tuple(dataclasses.replace(each, bytes=0) if each.asset is Asset.MEDIA else each for each in nothing)
    assert not any(each.present for each in without_data(found, empty))
    # Media that were not counted, media that are there, a database that answers, settings that say who it is.
    assert without_data(found, nothing) == nothing
    files = tuple(dataclasses.replace(each, bytes=7) if each.asset is Asset.MEDIA else each for each in nothing)
    assert without_data(found, files) == files
    database = tuple(dataclasses.replace(each, bytes=9) if each.asset is Asset.DATABASE else each for each in empty)
    assert without_data(found, database) == database
    assert without_data(dataclasses.replace(found, domain="social.example"), empty) == empty


def test_it_cannot_be_damaged(lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match="is empty"):
        lab.damage("spare")


def test_damage_is_what_it_says(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab", hosts=3, rows=30) as lab:
        social = lab.hosts["social"]
        assert lab.damage("social") == "DROP TABLE statuses CASCADE on social: 30 posts are gone"
        with pytest.raises(ConfigurationError, match="gone already"):
            lab.damage("social")
        assert "files are gone" in lab.damage("social", Asset.MEDIA)
        assert not (social.root / "public/system/media_attachments").exists()
        lab.damage("social", Asset.SECRETS)
        assert not (social.root / ".env.production").exists()
        assert "keys are gone" in lab.damage("social", Asset.REDIS)
        with social.redis.client() as client:
            assert client.dbsize() == 0
        with pytest.raises(ConfigurationError, match="in a bucket"):
            lab.damage("club", Asset.MEDIA)
        # The others are as they were.
        art = lab.hosts["art"]
        assert art.postgres.run_sql("SELECT count(*) FROM statuses", art.database.name) == "30\n"
