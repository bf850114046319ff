"""The units of a lab's hosts are real: they serve, they stop when they are told, and Redis keeps its settings."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import psutil
import pytest

from backends.embedded.keeper import marked
from backends.lab.host import LabHost
from backends.lab.lab import Lab
from backends.lab.services import wait_until_well
from backends.lab.systemd import Fault
from backends.lab.units import SIDEKIQ, STREAMING, STREAMING_PORT, WEB

MASTODON = (WEB, SIDEKIQ, STREAMING, STREAMING_PORT)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory: Path = tmp_path_factory.mktemp("services")
    with Lab(directory, hosts=2, rows=60, services=True) as running:
        yield running


@pytest.fixture
def host(lab: Lab) -> Iterator[LabHost]:
    """The first host, whose services run before and after."""
    social = lab.hosts["social"]
    yield social
    for fault in Fault:
        for unit in social.systemd.units:
            social.fault(unit, fault, on=False)
    social.systemd.stop_seconds = 15.0
    social.systemd.start(MASTODON)
    assert wait_until_well(social)


def run(host: LabHost, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in the host's own world, without the detour over SSH."""
    return subprocess.run(
        words,
        env={**host.ssh.environment, **environment},
        cwd=host.root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def systemctl(host: LabHost, *words: str) -> subprocess.CompletedProcess[str]:
    return run(host, "systemctl", *words)


def until(true: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def page(address: str) -> tuple[int, str]:
    try:
        with urlopen(address, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()
    except (URLError, OSError):
        return 0, ""


def pids(host: LabHost) -> dict[str, int]:
    shown = systemctl(host, "show", "-p", "Id,MainPID", *MASTODON).stdout.split("\n\n")
    pairs = [dict(line.split("=", 1) for line in block.split()) for block in shown]
    return {pair["Id"]: int(pair["MainPID"]) for pair in pairs}


def sessions(host: LabHost) -> list[str]:
    text = host.postgres.run_sql(
        f"SELECT application_name FROM pg_stat_activity WHERE datname = '{host.database.name}' ORDER BY 1"
    )
    return [line.split()[0] for line in text.splitlines()]


def test_web_and_streaming_answer_from_database_and_redis(lab: Lab) -> None:
    for host in lab.hosts.values():
        assert page(f"{host.web}/health") == (200, "OK")
        assert page(f"http://127.0.0.1:{host.streaming_port}/api/v1/streaming/health") == (200, "OK")
        assert '"status_count": 60' in page(f"{host.web}/api/v1/instance")[1]
        assert f"<h1>{host.plan.domain}</h1><p>60 posts of 24 people" in page(host.web)[1]
        assert page(f"{host.web}/nothing")[0] == 404
        assert f" PORT={host.web_port}\n" in systemctl(host, "show", "-p", "Environment", "mastodon-web").stdout


def test_health_is_bad_while_redis_or_the_database_is_away(host: LabHost) -> None:
    host.redis.stop()
    assert page(f"{host.web}/health")[0] == 500
    host.redis.start()
    assert page(f"{host.web}/health") == (200, "OK")
    name = host.database.name
    stop = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    while host.postgres.run_sql(stop):
        pass
    # They come back at once: that is why a restore stops them before it renames.
    assert page(f"{host.web}/health") == (200, "OK")


def test_they_hold_connections_and_leave_queues_alone(host: LabHost) -> None:
    until(lambda: sessions(host) == ["sidekiq"] * 2 + ["streaming"] + ["web"] * 3)
    with host.redis.client() as client:
        until(lambda: client.scard("processes") == 1)
        before = client.llen("queue:default")
        (me,) = client.smembers("processes")
        first = client.hget(me, "beat")
        until(lambda: client.hget(me, "beat") != first)
        assert client.llen("queue:default") == before > 0


def test_stop_ends_them_and_start_brings_them_back(host: LabHost) -> None:
    before = pids(host)
    assert all(pid for name, pid in before.items() if name != STREAMING)
    assert systemctl(host, "stop", "mastodon-*.service").returncode == 0
    assert systemctl(host, "is-active", *MASTODON).stdout.split() == ["inactive"] * 4
    assert set(pids(host).values()) == {0}
    assert not any(psutil.pid_exists(pid) for pid in before.values() if pid)
    assert page(f"{host.web}/health") == (0, "")
    assert sessions(host) == []
    with host.redis.client() as client:
        assert client.scard("processes") == 0
    name = host.database.name
    host.postgres.run_sql(f'ALTER DATABASE "{name}" RENAME TO "{name}_x"; ALTER DATABASE "{name}_x" RENAME TO "{name}"')
    assert systemctl(host, "start", "mastodon-web", "mastodon-streaming", "mastodon-sidekiq").returncode == 0
    assert systemctl(host, "is-active", *MASTODON).stdout.split() == ["active"] * 4
    assert wait_until_well(host)


def test_streaming_stops_and_starts_with_its_shim(host: LabHost) -> None:
    systemctl(host, "stop", "mastodon-streaming")
    assert systemctl(host, "is-active", "mastodon-streaming@4000").stdout == "inactive\n"
    assert systemctl(host, "is-active", "-q", "mastodon-web").returncode == 0
    systemctl(host, "restart", "--no-block", "mastodon-streaming")
    until(lambda: systemctl(host, "is-active", "mastodon-streaming@4000").stdout == "active\n")


def test_what_is_asked_is_answered_as_systemd_would(host: LabHost) -> None:
    shown = systemctl(host, "show", "-p", "LoadState,ActiveState,UnitFileState,MainPID", "nothing.service")
    assert "LoadState=not-found\n" in shown.stdout
    assert systemctl(host, "stop", "nothing").returncode == 5
    assert systemctl(host, "is-enabled", "mastodon-web").stdout == "enabled\n"
    assert systemctl(host, "show", "--value", "-p", "TimeoutStopUSec", "mastodon-web").stdout == "15s\n"
    assert systemctl(host, "list-units", "--type=timer", "--plain", "--no-legend", "mastodon*").stdout == ""
    assert systemctl(host, "daemon-reload").returncode == 0
    assert systemctl(host, "frobnicate").returncode == 1
    systemctl(host, "disable", "--now", "mastodon-web")
    assert systemctl(host, "is-enabled", "mastodon-web").stdout == "disabled\n"
    assert systemctl(host, "start", "mastodon-*").returncode == 0
    assert systemctl(host, "is-active", "mastodon-web").stdout == "inactive\n"
    systemctl(host, "enable", "--now", "mastodon-web")
    assert wait_until_well(host)


def test_one_that_is_killed_comes_back(host: LabHost) -> None:
    before = pids(host)[WEB]
    os.kill(before, signal.SIGKILL)
    until(lambda: pids(host)[WEB] not in {0, before})
    assert systemctl(host, "show", "--value", "-p", "NRestarts", "mastodon-web").stdout == "1\n"


def test_without_its_secrets_it_gives_up(host: LabHost) -> None:
    settings = host.root / ".env.production"
    aside = settings.rename(host.root / ".env.aside")
    try:
        systemctl(host, "stop", "mastodon-web")
        assert systemctl(host, "start", "mastodon-web").returncode == 0
        until(lambda: systemctl(host, "is-failed", "mastodon-web").stdout == "failed\n")
        assert systemctl(host, "show", "--value", "-p", "Result", "mastodon-web").stdout == "start-limit-hit\n"
        assert "No such file" in (host.directory / f"var/log/{WEB}.log").read_text()
    finally:
        aside.rename(settings)
    systemctl(host, "reset-failed", "mastodon-web")
    assert systemctl(host, "is-active", "mastodon-web").stdout == "inactive\n"


def test_faults(host: LabHost) -> None:
    host.fault(WEB, Fault.UNWELL)
    assert page(f"{host.web}/health")[0] == 503
    host.systemd.stop_seconds = 0.3
    host.fault(SIDEKIQ, Fault.STUBBORN)
    assert systemctl(host, "stop", "mastodon-sidekiq").returncode == 0
    assert systemctl(host, "is-active", "mastodon-sidekiq").stdout == "failed\n"
    host.fault(STREAMING_PORT, Fault.STUCK)
    stuck = systemctl(host, "stop", "mastodon-streaming@4000")
    assert (stuck.returncode, stuck.stderr) == (1, f"Job for {STREAMING_PORT} canceled.\n")
    assert systemctl(host, "is-active", "mastodon-streaming@4000").stdout == "deactivating\n"
    assert pids(host)[STREAMING_PORT]
    host.fault(STREAMING_PORT, Fault.STUCK, on=False)
    assert systemctl(host, "stop", "mastodon-streaming@4000").returncode == 0
    systemctl(host, "stop", "mastodon-web")
    host.fault(WEB, Fault.BROKEN)
    systemctl(host, "start", "mastodon-web")
    until(lambda: systemctl(host, "is-failed", "mastodon-web").returncode == 0)


def test_redis_stops_for_certain_and_keeps_its_settings(host: LabHost) -> None:
    with host.redis.client() as client:
        info = client.info("server")
        assert info["config_file"] == str(host.redis.config)
        assert info["config_file"] in systemctl(host, "show", "-p", "ExecStart", "redis-server").stdout
        pid = systemctl(host, "show", "--value", "-p", "MainPID", "redis-server").stdout
        assert int(pid) == info["process_id"] == host.redis.pid
        keys = client.dbsize()
        client.config_set("appendonly", "yes")
        client.config_rewrite()
        until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
    assert systemctl(host, "stop", "redis-server").returncode == 0
    assert not psutil.pid_exists(int(pid))
    assert systemctl(host, "is-active", "redis-server").stdout == "inactive\n"
    assert systemctl(host, "start", "redis-server").returncode == 0
    with host.redis.client() as client:
        assert client.info("persistence")["aof_enabled"] == 1
        assert abs(client.dbsize() - keys) <= 1
        client.config_set("appendonly", "no")
        client.config_rewrite()


def test_redis_that_cannot_read_its_data_does_not_start(host: LabHost) -> None:
    systemctl(host, "stop", "redis-server")
    whole = host.redis.dump.read_bytes()
    host.redis.dump.write_bytes(whole[: len(whole) // 2])
    failed = systemctl(host, "start", "redis-server")
    assert failed.returncode == 1
    assert "Job for redis-server.service failed" in failed.stderr
    assert systemctl(host, "is-active", "redis-server").stdout == "failed\n"
    host.redis.dump.write_bytes(whole)
    assert systemctl(host, "start", "redis-server").returncode == 0


def test_feeds_are_built_with_progress(host: LabHost) -> None:
    with host.redis.client() as client:
        for key in client.scan_iter("feed:home:*"):
            client.delete(key)
        assert run(host, "bin/tootctl", "feeds", "build").returncode == 1
        done = run(host, "bin/tootctl", "feeds", "build", "--all", RAILS_ENV="production")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("Progress: |=")
        assert done.stdout.endswith("=|\nRegenerated feeds for 24 accounts \n")
        assert len(list(client.scan_iter("feed:home:*"))) > 3
    on_terminal = run(host, "script", "-qc", "bin/tootctl feeds build", "/dev/null", RAILS_ENV="production")
    assert "\n12/24 |=" in on_terminal.stdout


def test_migrations_are_carried_out(lab: Lab, host: LabHost) -> None:
    older = lab.hosts["art"]
    for each in (host, older):
        files = [path.name for path in each.root.glob("db/*migrate/*.rb")]
        head = each.postgres.run_sql("SELECT max(version) FROM schema_migrations", each.database.name).strip()
        assert max(files).startswith(head)
        assert run(each, "bin/rails", "db:abort_if_pending_migrations", RAILS_ENV="production").returncode == 0
    newer = host.root / "db/migrate/20270101000000_add_index_to_statuses.rb"
    newer.touch()
    try:
        pending = run(host, "bin/rails", "db:abort_if_pending_migrations", RAILS_ENV="production")
        assert (pending.returncode, "20270101000000" in pending.stderr) == (1, True)
        bundle = str(host.home / ".rbenv/shims/bundle")
        done = run(host, bundle, "exec", "rails", "db:migrate", RAILS_ENV="production")
        assert "== 20270101000000 AddIndexToStatuses: migrated" in done.stdout
        assert "20270101000000" in (host.root / "log/migrate.log").read_text()
        counted = run(host, "bin/rails", "dbconsole", "-XAtc", "SELECT count(*) FROM statuses", RAILS_ENV="production")
        assert counted.stdout == "60\n"
    finally:
        newer.unlink()
        host.postgres.run_sql("DELETE FROM schema_migrations WHERE version = '20270101000000'", host.database.name)


def test_nothing_stays_though_units_are_stuck(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab", hosts=1, rows=10, services=True).start()
    host = lab.hosts["social"]
    for unit in MASTODON:
        host.fault(unit, Fault.STUCK)
    threading.Thread(target=host.systemd.stop, args=(MASTODON,), daemon=True).start()
    family = [psutil.Process(pid) for pid in pids(host).values() if pid]
    begin = time.monotonic()
    lab.stop()
    assert time.monotonic() - begin < 10
    assert not any(process.is_running() for process in family)
    assert not marked(lab.mark)
