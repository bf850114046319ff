"""A Debian host with systemd, reached as an administrator with sudo: whole commands, backup first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.servers.debian import Debian
from tests.servers.debian_mastodon import ROOT, Mastodon, install
from tests.servers.debian_operator import Operator

pytestmark = [pytest.mark.apt, pytest.mark.root, pytest.mark.timeout(400)]

_SECRETS = ("SECRET_KEY_BASE", "ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY", "VAPID_PRIVATE_KEY")


@dataclass(frozen=True)
class World:
    """The host and who looks after it."""

    host: Debian
    mastodon: Mastodon
    operator: Operator


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("operator")
    with Debian(tmp_path_factory.mktemp("social")) as host:
        mastodon = install(host)
        operator = Operator(home, [mastodon.values[name] for name in _SECRETS] + [host.password])
        yield World(host, mastodon, operator)


def test_a_host_is_added_by_hand(world: World) -> None:
    host, operator = world.host, world.operator
    address = f"127.0.0.1:{host.ssh_port}"
    login = ("--identity-file", str(host.key), "--become", "sudo")
    refused = operator.run("host", "add", "social", f"admin@{address}", *login)
    assert refused.returncode != 0
    assert host.fingerprint in refused.stderr
    said = operator.must("host", "add", "social", f"admin@{address}", *login, "--accept-key", host.fingerprint)
    assert ROOT in said
    assert "4.7.4" in said
    operator.must("host", "add", "social2", f"ops@{address}", *login, "--no-probe")
    config = operator.config.read_text()
    secret = operator.home / "sudo-password"
    secret.write_text(host.password + "\n")
    operator.config.write_text(config + f'become_password_command = "cat {secret}"\n')
    assert ROOT in operator.must("host", "probe", "social2")


def test_all_assets_are_backed_up_with_sudo(world: World) -> None:
    results = world.operator.done("backup", "social")
    assert list(results) == ["database", "secrets", "media", "redis"]
    assert not any(result["in_part"] for result in results.values()), results
    manifest = json.loads((world.operator.folder(results["database"]["snapshot"]) / "manifest.json").read_text())
    assert manifest["facts"]["tables"]["public.statuses"]["rows"] == 2000
    assert world.mastodon.healthy()


def test_all_assets_are_backed_up_with_a_sudo_password(world: World) -> None:
    results = world.operator.done("backup", "social2")
    assert list(results) == ["database", "secrets", "media", "redis"]


def test_settings_come_back_with_a_sudo_password(world: World) -> None:
    env = f"{ROOT}/.env.production"
    world.host.run(f"echo BROKEN=1 >>{env}")
    world.operator.done("restore", "social2/secrets", "--confirm", "social2/secrets")
    assert "BROKEN" not in world.host.run(f"cat {env}")
    assert world.mastodon.healthy()


def test_nothing_stored_shows_a_secret(world: World) -> None:
    for path in world.operator.files():
        data = path.read_bytes()
        assert not any(secret.encode() in data for secret in world.operator.secrets), path
