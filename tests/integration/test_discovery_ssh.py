"""Discovery and the secrets over a real sshd, with real users and a real sudo."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.assets.secrets import HANDLER
from backends.connection.open import open_connection
from backends.errors import DiscoveryFailed
from backends.mastodon.discovery import discover
from backends.mastodon.installation import InstallKind
from tests.servers.mastodon_tree import VERSION_RB
from tests.servers.openssh import OpenSSH
from tests.servers.users import Users

pytestmark = [pytest.mark.apt, pytest.mark.root]

ENV = "LOCAL_DOMAIN=social.example\nDB_HOST=127.0.0.1\nDB_PORT=1\nSECRET_KEY_BASE=" + "0123456789abcdef" * 8 + "\n"


@pytest.fixture
def users() -> Iterator[Users]:
    with Users() as made:
        yield made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OpenSSH]:
    with OpenSSH(tmp_path / "sshd") as started:
        yield started


@pytest.fixture
def root(users: Users) -> Path:
    """Mastodon in a home that only its own user may enter."""
    home = Path(f"/home/{users.other}")
    live = home / "live"
    (live / "lib/mastodon").mkdir(parents=True)
    (live / "lib/mastodon/version.rb").write_text(VERSION_RB)
    env = live / ".env.production"
    env.write_text(ENV)
    env.chmod(0o600)
    for path in (live, *live.rglob("*")):
        shutil.chown(path, users.other, users.other)
    home.chmod(0o750)
    return live


def test_sudo_to_mastodons_user_is_enough(users: Users, server: OpenSSH, root: Path) -> None:
    users.allow("{login} ALL=({other}) NOPASSWD: ALL")
    host = server.host_config(user=users.login, become="sudo", become_user=users.other, root=str(root))
    with open_connection("social", host) as connection:
        installation = discover(connection, "social", host)
        seen = HANDLER.probe(connection, installation)
    assert (installation.kind, installation.user, installation.version) == (InstallKind.NATIVE, users.other, "4.6.3")
    [file] = installation.secret_files
    assert (file.read_as, file.owner, file.mode) == (users.other, users.other, 0o600)
    assert seen.detail == "4 keys in 1 file"
    assert seen.fingerprint
    assert any(text.startswith("PostgreSQL did not answer: ") for text in installation.warnings)


def test_without_sudo_the_missing_right_is_named(users: Users, server: OpenSSH, root: Path) -> None:
    host = server.host_config(user=users.login, root=str(root))
    with open_connection("social", host) as connection, pytest.raises(DiscoveryFailed) as caught:
        discover(connection, "social", host)
    assert caught.value.sentence == (
        f"{users.login} may not look into the directories above {root}/lib/mastodon/version.rb"
    )
    assert 'become = "sudo"' in caught.value.next_step


def test_sudo_that_refuses_is_quoted(users: Users, server: OpenSSH, root: Path) -> None:
    host = server.host_config(user=users.login, become="sudo", root=str(root))
    with open_connection("social", host) as connection, pytest.raises(DiscoveryFailed) as caught:
        discover(connection, "social", host)
    assert "sudo on social did not let" in caught.value.sentence
