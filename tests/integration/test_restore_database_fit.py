"""Targets that a database's restore does not fit, found at the look before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backends.connection.base import Connection
from backends.restore.plan import Phase
from backends.restore.source import Source
from tests.integration.test_restore_database_faults import blocks, facts
from tests.integration.test_restore_database_faults import host as host
from tests.integration.test_restore_database_faults import postgres as postgres
from tests.integration.test_restore_database_faults import snapshots as snapshots
from tests.integration.test_restore_database_faults import unhurt as unhurt
from tests.integration.test_restore_database_faults import whole as whole
from tests.servers.database_restore import Driver
from tests.servers.postgres import Postgres


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"server_version_num": 990000}, "is older than the dump's server, 99"),
        ({"dump_version": "16.1"}, "is older than the pg_dump 16 that made the dump"),
        ({"dump_version": "99.1"}, "was made by pg_dump 99, whose pg_restore does not work with PostgreSQL 15"),
        ({"mastodon_version": "5.0.0"}, "Mastodon 4.7.4 on the target is older than the dump"),
        ({"database_bytes": 1 << 55}, "free, and the restored database needs"),
    ],
)
def test_what_does_not_fit_is_refused(
    host: Connection, postgres: Postgres, whole: Source, unhurt: None, changes: dict[str, Any], words: str
) -> None:
    (blocked,) = blocks(Driver(host, postgres.installation(), facts(whole, **changes)))
    assert words in blocked.text
    assert blocked.way_out


def test_what_is_worth_a_note(host: Connection, postgres: Postgres, whole: Source, unhurt: None) -> None:
    odd = facts(
        whole, collate="xx_XX.UTF-8", ctype="xx_XX.UTF-8", extensions={"pg_repack": "1"}, schemas=["public", "mine"]
    )
    driver = Driver(host, postgres.installation(), odd)
    notes = "\n".join(finding.text for finding in driver.look().findings if finding.level == "note")
    assert "xx_XX.UTF-8) is not known to the target's PostgreSQL; UTF8, C.UTF-8 is used" in notes
    assert "lacks the extensions pg_repack" in notes
    assert "also holds mine" in notes
    driver.run(until=Phase.PROVE)
    driver.back("rollback")


def test_a_server_that_cannot_be_reached(host: Connection, postgres: Postgres, whole: Source, unhurt: None) -> None:
    (blocked,) = blocks(Driver(host, postgres.installation(postgres.place(port=1)), whole))
    assert "does not answer" in blocked.text
    (blocked,) = blocks(Driver(host, postgres.installation(postgres.place(port=6432)), whole))
    assert "PgBouncer" in blocked.text


def test_a_host_without_pg_restore(
    host: Connection, postgres: Postgres, whole: Source, unhurt: None, tmp_path: Path
) -> None:
    for name in ("psql", "pg_dump", "pg_dumpall"):
        (tmp_path / name).symlink_to(postgres.bin / name)
    (blocked,) = blocks(Driver(host, postgres.installation(postgres.place(bin_dir=str(tmp_path))), whole))
    assert blocked.text == "pg_restore was not found on social."
    assert "postgresql-client-15" in blocked.way_out
