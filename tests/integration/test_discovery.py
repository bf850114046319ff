"""Discovery on hosts that are directories of this machine, reached by the local connection."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.connection.base import Command, Completed
from backends.errors import CommandFailed, DiscoveryFailed
from backends.mastodon.discovery import discover
from backends.mastodon.installation import Installation, InstallKind, MediaKind
from backends.mastodon.kinds import require_supported
from backends.model import Secret
from tests.servers.mastodon_tree import Recorded, Tree, outsider
from tests.servers.need import need_root
from tests.servers.postgres import Postgres

ENV = """\
LOCAL_DOMAIN=social.example
SECRET_KEY_BASE=0123456789abcdef0123456789abcdef
DB_HOST={directory}
DB_PASS="a pass#word"
REDIS_URL=redis://:hush@localhost:6379/1
S3_ENABLED=false
"""


@pytest.fixture
def tree(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    with Tree(monkeypatch) as made:
        yield made


def env(tree: Tree) -> str:
    return ENV.format(directory=tree.directory)


def found(tree: Tree, **values: object) -> Installation:
    host = tree.config(**values)
    with tree.connect(host) as connection:
        return discover(connection, "social", host)


def test_a_native_installation_is_found_by_its_services(tree: Tree) -> None:
    root = tree.make(env(tree), tree.directory / "srv/elsewhere")
    tree.unit(root=root, Environment='RAILS_ENV=production PORT=3000 "LOCAL_DOMAIN=from.unit"')
    installation = found(tree)
    assert installation.kind is InstallKind.NATIVE
    assert (installation.root, installation.version, installation.user) == (str(root), "4.6.3", getpass.getuser())
    assert installation.units == ("mastodon-web.service",)
    assert installation.domain == "from.unit"
    assert installation.environment["DB_PASS"] == Secret("a pass#word")
    assert installation.media is not None
    assert (installation.media.kind, installation.media.path) == (MediaKind.LOCAL, f"{root}/public/system")
    assert [(place.role, place.database) for place in installation.redis] == [("base", 1), ("sidekiq", 1), ("cache", 1)]
    [file] = installation.secret_files
    assert (file.path, file.mode, file.owner) == (f"{root}/.env.production", 0o600, getpass.getuser())
    known = Path("/etc/machine-id")
    assert installation.machine_id == (known.read_text().strip() if known.exists() else "")


def test_it_is_found_in_the_home_of_the_login_user(tree: Tree) -> None:
    tree.make(env(tree))
    assert found(tree).root == str(tree.root)


def test_the_configured_root_wins(tree: Tree) -> None:
    tree.make(env(tree))
    other = tree.make(env(tree), tree.directory / "other live")
    assert found(tree, root=f"{other}/").root == str(other)


def test_several_installations_are_said(tree: Tree) -> None:
    tree.make(env(tree))
    other = tree.make(env(tree), tree.directory / "other")
    tree.unit(root=other)
    installation = found(tree)
    assert installation.root == str(other)
    assert any(str(tree.root) in warning for warning in installation.warnings)


@pytest.mark.parametrize("name", ["with space", "quo'te\"s", "new\nline", "$(touch x)", "-dash", "ümlaut"])
def test_any_path_may_be_the_root(tree: Tree, name: str) -> None:
    root = tree.make(env(tree), tree.directory / name)
    assert found(tree, root=str(root)).root == str(root)
    assert not (tree.home / "x").exists()


def test_a_root_without_mastodon_is_said(tree: Tree) -> None:
    with pytest.raises(DiscoveryFailed) as caught:
        found(tree, root="/nowhere/live")
    assert (
        caught.value.sentence == "/nowhere/live holds no Mastodon: /nowhere/live/lib/mastodon/version.rb does not exist"
    )


def test_no_mastodon_is_said_with_where_was_looked(tree: Tree) -> None:
    with pytest.raises(DiscoveryFailed) as caught:
        found(tree)
    assert caught.value.sentence.startswith("no Mastodon was found on social (looked at its systemd services, ")
    assert "`root`" in caught.value.next_step


def test_settings_are_taken_where_they_come_first(tree: Tree) -> None:
    root = tree.make("A=production\nB=production\nC=production\nD=production\n")
    (root / ".env.production.local").write_text("A=local\n")
    (root / ".env").write_text("A=env\nE=$A\n")
    unit_file = tree.directory / "unit.env"
    unit_file.write_text("B='unit file'\n")
    drop_in = tree.directory / "override.conf"
    drop_in.write_text("[Service]\nEnvironment=C=drop-in\n")
    tuning = tree.directory / "tuning.conf"
    tuning.write_text("[Service]\nNice=5\n")
    files = f"{unit_file} (ignore_errors=no)\n{tree.directory}/gone (ignore_errors=yes)"
    tree.unit(Environment="C=drop-in", EnvironmentFiles=files, DropInPaths=f"{drop_in} {tuning}")
    installation = found(tree)
    values = {name: value.reveal() for name, value in installation.environment.items()}
    assert values == {"A": "local", "B": "unit file", "C": "drop-in", "D": "production", "E": "local"}
    assert [(Path(file.path).name, file.format) for file in installation.secret_files] == [
        ("unit.env", "systemd"),
        (".env.production.local", "dotenv"),
        (".env.production", "dotenv"),
        (".env", "dotenv"),
        ("override.conf", "raw"),
    ]


def test_an_absent_settings_file_is_a_warning(tree: Tree) -> None:
    tree.make(None)
    installation = found(tree)
    assert installation.secret_files == ()
    assert installation.warnings[0] == f"{tree.root}/.env.production does not exist"


def test_an_unreadable_settings_file_is_one_sentence_with_the_right_that_is_missing(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_root("to log in as another user")
    root = tree.make(env(tree))
    os.chown(root / ".env.production", 1, 1)
    host = tree.config(root=str(root))
    with outsider(monkeypatch, host) as connection, pytest.raises(DiscoveryFailed) as caught:
        discover(connection, "social", host)
    assert caught.value.sentence == (
        f"{root}/.env.production cannot be read by nobody (mode 0600, owner daemon:daemon)"
    )
    assert caught.value.next_step == 'Log in as daemon, or set `become = "sudo"` for this host.'


def test_a_home_that_may_not_be_entered_is_said(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    need_root("to log in as another user")
    tree.make(env(tree))
    tree.home.chmod(0o700)
    tree.unit(user="daemon")
    host = tree.config()
    with outsider(monkeypatch, host) as connection, pytest.raises(DiscoveryFailed) as caught:
        discover(connection, "social", host)
    assert caught.value.sentence.startswith("nobody may not look into the directories above ")
    assert "become" in caught.value.sentence


def test_the_services_user_reads_what_the_login_user_may_not(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    need_root("to log in as another user")
    root = tree.make(env(tree))
    os.chown(root / ".env.production", 1, 1)
    tree.unit(user="daemon")
    host = tree.config(become="sudo")
    with outsider(monkeypatch, host, granted=["daemon"]) as connection:
        installation = discover(connection, "social", host)
        as_users = {command.as_user for command in connection.commands}
    assert installation.secret_files[0].read_as == "daemon"
    assert installation.user == "daemon"
    assert "root" not in as_users


def test_root_reads_what_nobody_else_may(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    need_root("to log in as another user")
    root = tree.make(env(tree))
    host = tree.config(become="sudo", root=str(root))
    with outsider(monkeypatch, host, granted=["root"]) as connection:
        installation = discover(connection, "social", host)
    assert installation.secret_files[0].read_as == "root"
    assert installation.environment["DB_PASS"] == Secret("a pass#word")


@pytest.mark.parametrize(
    ("content", "warning"),
    [
        (b"DB_PASS=$(cat /etc/passwd)\n", "DB_PASS in .env.production is the output of a command"),
        (b"A=x\0y\n", ".env.production holds a NUL byte (line 1)"),
        (b"A=1\nB=\xff\n", ".env.production is not UTF-8 (line 2)"),
        (b"\0\n\nmastovault-0 end\n\x1b[2J[/x]\n", ".env.production holds a NUL byte (line 1)"),
    ],
)
def test_odd_settings_are_warnings(tree: Tree, content: bytes, warning: str) -> None:
    tree.make(b"DB_HOST=" + str(tree.directory).encode() + b"\n" + content)
    assert any(
        text.startswith(warning.replace("line 2", "line 3").replace("line 1", "line 2"))
        for text in found(tree).warnings
    )


def test_ten_megabytes_of_settings_are_one_sentence(tree: Tree) -> None:
    tree.make(b"A=1\n" * 2_500_000)
    with pytest.raises(DiscoveryFailed) as caught:
        found(tree)
    assert caught.value.sentence.startswith(f"{tree.root}/.env.production is 10.0 MB large")


def test_a_directory_in_the_place_of_the_settings_is_no_settings(tree: Tree) -> None:
    tree.make(None)
    (tree.root / ".env.production").mkdir()
    assert found(tree).secret_files == ()


def test_containers_are_recognised_and_refused(tree: Tree) -> None:
    tree.program("podman", "echo 'ghcr.io/mastodon/mastodon:v4.6.3|masto-web-1|/srv/masto'")
    installation = found(tree)
    assert (installation.kind, installation.root) == (InstallKind.DOCKER, "/srv/masto")
    assert "docker compose" in installation.warnings[0]
    with pytest.raises(DiscoveryFailed) as caught:
        require_supported(installation)
    assert caught.value.sentence.startswith("Mastodon on social runs in containers")


def test_a_clone_beside_containers_is_dockers(tree: Tree) -> None:
    tree.make(env(tree))
    tree.program("podman", "echo 'tootsuite/mastodon:v4.2.1|masto_web_1|'")
    assert found(tree).kind is InstallKind.DOCKER


def test_docker_is_asked_as_root_when_the_login_user_may_not(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    need_root("to log in as another user")
    tree.make(env(tree)).joinpath(".env.production").chmod(0o644)
    tree.program("podman", "echo denied")
    tree.program("docker", "[ $(id -u) = 0 ] && echo 'tootsuite/mastodon:v4|web|/srv/m'")
    host = tree.config(become="sudo")
    with outsider(monkeypatch, host, granted=["root"]) as connection:
        assert discover(connection, "social", host).kind is InstallKind.DOCKER


def test_kubernetes_is_recognised(tree: Tree) -> None:
    tree.program("kubectl", "echo pod/mastodon-web-5d9c")
    assert found(tree).kind is InstallKind.KUBERNETES


def test_a_banner_is_no_answer(tree: Tree) -> None:
    tree.make(env(tree))
    tree.program("systemctl", "echo 'Welcome! You have mail.'; echo; echo 'Id=x'")
    assert found(tree).root == str(tree.root)


@pytest.mark.parametrize("script", ["systemctl", "stat"])
def test_a_shell_that_stops_half_way_is_said(tree: Tree, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    tree.make(env(tree))
    run = Recorded.run

    def cut(self: Recorded, command: Command, **options: Any) -> Completed:
        done = run(self, command, **options)
        broken = script in " ".join(command.argv)
        return Completed(137, done.stdout[: len(done.stdout) // 2], b"Killed\n") if broken else done

    monkeypatch.setattr(Recorded, "run", cut)
    with pytest.raises(CommandFailed) as caught:
        found(tree)
    assert "did not answer as expected" in caught.value.sentence
    assert caught.value.sentence.endswith("Killed")


def test_a_database_that_does_not_answer_is_a_warning(tree: Tree) -> None:
    tree.make(env(tree))
    installation = found(tree)
    assert installation.database is not None
    assert installation.database.server_version is None
    assert any(text.startswith("PostgreSQL did not answer: ") for text in installation.warnings)


def test_psql_that_is_missing_is_a_warning(tree: Tree) -> None:
    tree.make(env(tree))
    tree.program("psql", "exit 127")
    assert any("PostgreSQL did not answer" in text for text in found(tree).warnings)


def test_no_value_is_in_an_argument_or_an_environment(tree: Tree) -> None:
    tree.make(env(tree))
    with tree.connect() as connection:
        installation = discover(connection, "social", tree.config())
        told = [" ".join((*command.argv, *(command.env or {}).values())) for command in connection.commands]
    for name in ("DB_PASS", "SECRET_KEY_BASE"):
        assert installation.environment[name].reveal() not in "".join(told)
    assert "a pass#word" not in repr(installation)


@pytest.mark.apt
def test_postgresql_is_asked_for_its_version(tree: Tree, tmp_path: Path) -> None:
    with Postgres(tmp_path) as server:
        server.sql(f"CREATE ROLE mastodon LOGIN PASSWORD '{server.password}'")
        server.sql("CREATE DATABASE masto OWNER mastodon")
        tree.make(f"DB_HOST=127.0.0.1\nDB_PORT={server.port}\nDB_NAME=masto\nDB_PASS={server.password}\n")
        place = found(tree).database
        assert place is not None
        assert place.server_version is not None
        assert place.bin_dir == f"/usr/lib/postgresql/{place.server_version // 10000}/bin"
        assert place.as_user is None
        assert place.warnings == ()


@pytest.mark.apt
def test_peer_authentication_is_found_by_the_services_user(tree: Tree, tmp_path: Path) -> None:
    need_root("peer authentication as another user")
    with Postgres(tmp_path) as server:
        tree.make(
            f"DB_HOST={server.directory}\nDB_PORT={server.port}\nDB_NAME=postgres\nDB_USER=postgres\nDB_PASS=no\n"
        )
        tree.unit(user=server.user)
        place = found(tree).database
        assert place is not None
        assert place.server_version is not None
        assert place.as_user == server.user
