"""Drills of dumps from Debian's PostgreSQL in the embedded, newer one; and of dumps that are no good."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.archive.keys import new_identity, write_identity
from backends.archive.manifest import Manifest
from backends.archive.writer import begin_snapshot
from backends.assets.base import BackupContext
from backends.assets.database import HANDLER
from backends.config.paths import Paths
from backends.config.schema import Config, DirectoryVault, Encryption
from backends.model import Asset, JobState, utc_now
from backends.operations.fleet import load_fleet, refresh_vaults
from backends.vault.directory import DirectoryVault as Vault
from backends.vault.format import prepare
from tests.proof_world import Proofs
from tests.proof_world import nothing_left as nothing_left
from tests.servers.backup import WatchedJob, local_host
from tests.servers.postgres import Postgres

pytestmark = [pytest.mark.apt, pytest.mark.usefixtures("nothing_left")]
LIVE = "mastodon_production"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("pg")) as server:
        server.load_mastodon(statuses=700)
        yield server


class Stored:
    """A vault of its own, and backups of a real server in it."""

    def __init__(self, place: Path) -> None:
        identity, self.recipient = new_identity()
        write_identity(place / "identity.age", identity, None)
        self.config = Config(
            encryption=Encryption(recipients=(self.recipient,), identity=place / "identity.age"),
            vaults={"local": DirectoryVault(type="directory", path=place / "vault")},
        )
        self.paths = Paths(place / "config.toml", place / "state", place / "cache")
        self.vault = Vault("local", place / "vault")
        prepare(self.vault, [self.recipient])

    def take(self, postgres: Postgres, database: str = LIVE, **facts: Any) -> Proofs:
        """Back a database up; `facts` replace some of the manifest's."""
        writer = begin_snapshot(
            [self.vault], host="social", asset=Asset.DATABASE, run="run-1", recipients=[self.recipient]
        )
        with local_host() as connection:
            installation = postgres.installation(postgres.place(database=database))
            context = BackupContext(connection=connection, installation=installation, job=WatchedJob())
            outcome = HANDLER.back_up(context, writer)
        manifest: Manifest = writer.commit({**outcome.facts, **facts})
        return Proofs(self.config, self.paths, "social", {Asset.DATABASE: manifest.id})


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


def test_an_older_dump_is_proven_in_the_newer_server(postgres: Postgres, stored: Stored) -> None:
    proofs = stored.take(postgres)
    result = proofs.drill()[Asset.DATABASE]
    assert result.state is JobState.DONE, result
    assert " tables, " in result.detail
    assert " rows equal; restore takes " in result.detail
    assert "this restore point has none" in result.warnings[0], "there are no secrets"
    details = proofs.checks(Asset.DATABASE)[0].details
    assert details["server"].startswith("PostgreSQL 18")
    assert proofs.catalog.manifest(proofs.snapshots[Asset.DATABASE]).facts["dump_version"].startswith("1")
    assert proofs.verify()[Asset.DATABASE].state is JobState.DONE


def test_a_duplicate_in_a_unique_index_fails_the_drill(postgres: Postgres, stored: Stored) -> None:
    postgres.sql(f"CREATE DATABASE damaged TEMPLATE {LIVE} OWNER mastodon")
    try:
        ready = "UPDATE pg_index SET indisready = {} WHERE indexrelid = 'index_statuses_on_uri'::regclass"
        rows = ", ".join(f"({number}, '', now(), now(), 1, 'https://twice.example')" for number in (1, 2))
        postgres.sql(ready.format("false"), "damaged")
        postgres.sql(
            f"INSERT INTO statuses (id, text, created_at, updated_at, account_id, uri) VALUES {rows}", "damaged"
        )
        postgres.sql(ready.format("true"), "damaged")
        proofs = stored.take(postgres, "damaged")
    finally:
        postgres.sql("DROP DATABASE damaged")
    assert proofs.verify()[Asset.DATABASE].state is JobState.DONE, "as a file it is whole"
    result = proofs.drill()[Asset.DATABASE]
    assert (result.state, result.exit_code) == (JobState.FAILED, 1)
    assert "unique index index_statuses_on_uri" in (result.error or "")
    (drilled, _) = proofs.checks(Asset.DATABASE)
    assert not drilled.ok
    assert "index_statuses_on_uri" in drilled.details["said"]
    assert proofs.info(Asset.DATABASE).drill_failed
    config = proofs.config.model_copy(update={"hosts": {"social": _host()}})
    refresh_vaults(config, proofs.catalog)
    row = next(row for row in load_fleet(config, proofs.catalog, utc_now()).assets if row.asset is Asset.DATABASE)
    assert "the drill of the newest snapshot failed" in {reason.text for reason in row.reasons}


def _host() -> Any:
    from backends.config.schema import HostConfig

    return HostConfig(address="local")


def test_what_differs_from_the_manifest_fails_the_drill(postgres: Postgres, stored: Stored) -> None:
    facts: dict[str, Any] = {
        "unique_indexes": 99,
        "newest_status": {"id": "1", "created_at": "2020-01-01T00:00:00Z"},
        "migrations": {"head": "20990101000000", "count": 1},
    }
    proofs = stored.take(postgres, **facts)
    result = proofs.drill()[Asset.DATABASE]
    assert result.state is JobState.FAILED
    assert "unique indexes instead of 99" in (result.error or "")
    said = "; ".join(proofs.checks(Asset.DATABASE)[0].details["differences"])
    assert "the newest post differ" in said
    assert "the migrations differ" in said


def test_the_commands_follow_a_run_and_say_what_came_of_it(postgres: Postgres, stored: Stored) -> None:
    proofs = stored.take(postgres)
    vault = proofs.config.vaults["local"].model_dump()["path"]
    proofs.paths.config_file.write_text(
        f'[encryption]\nrecipients = ["{stored.recipient}"]\nidentity = "{proofs.config.encryption.identity}"\n'
        f'[vaults.local]\ntype = "directory"\npath = "{vault}"\n[hosts.social]\naddress = "local"\n'
    )
    snapshot = proofs.snapshots[Asset.DATABASE]
    for words in (["verify", "social"], ["verify", "--all", "--sample", "1"], ["verify", snapshot[-8:]]):
        code, events = _command(proofs, *words, "--json")
        (result,) = events[-1]["results"]
        assert (code, result["result"], result["snapshot"]) == (0, "done", snapshot), events
        assert "read and decoded" in result["detail"]
    code, events = _command(proofs, "drill", "social/database", "--json")
    (result,) = events[-1]["results"]
    assert (code, result["result"]) == (3, "done"), "without secrets it is done in part"
    assert "restore takes" in result["detail"]
    steps = {event["step"] for event in events[:-1]}
    assert "counting rows" in steps
    for wrong in (["verify"], ["verify", "x", "--all"], ["verify", "nobody"], ["drill", "social", "--on", "nobody"]):
        assert _command(proofs, *wrong)[0] == 2
    code, events = _command(proofs, "list", "--json")
    assert events[0]["snapshots"][0]["drilled_at"]


def _command(proofs: Proofs, *words: str) -> tuple[int, list[Any]]:
    import os

    environment = {**os.environ, **proofs.paths.environment()}
    done = subprocess.run(
        [sys.executable, "-m", "tui", *words], capture_output=True, text=True, env=environment, timeout=100, check=False
    )
    if "--json" not in words:
        return done.returncode, []
    if words[0] == "list":
        return done.returncode, [json.loads(done.stdout)]
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]
