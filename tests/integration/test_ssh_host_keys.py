"""Host keys against a real sshd: strict, with a way to accept, and without a way around."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.connection.base import Command
from backends.connection.host_keys import accept
from backends.connection.open import open_connection
from backends.errors import HostKeyChanged, HostKeyUnknown
from tests.servers.need import need
from tests.servers.openssh import OpenSSH


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSH]:
    with OpenSSH(tmp_path_factory.mktemp("sshd")) as running:
        yield running


def shown_by_ssh_keygen(key: Path) -> str:
    (keygen,) = need("ssh-keygen")
    done = subprocess.run([keygen, "-lf", str(key)], capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


def connects(server: OpenSSH, known_hosts: Path) -> bool:
    with open_connection("social", server.host_config(known_hosts=known_hosts)) as connection:
        return connection.run(Command(("true",))).status == 0


def test_unknown_is_refused_and_can_be_accepted(server: OpenSSH, tmp_path: Path) -> None:
    known_hosts = tmp_path / "fresh" / "known_hosts"
    host = server.host_config(known_hosts=known_hosts)
    with pytest.raises(HostKeyUnknown) as caught:
        open_connection("social", host)
    error = caught.value
    assert error.fingerprint == shown_by_ssh_keygen(server.host_key.with_name("host_key.pub"))
    assert error.key_type == "ssh-ed25519"
    assert "social" in error.sentence
    assert error.fingerprint in error.sentence
    assert "ssh-keygen -lf" in error.next_step
    assert "mastovault host add" in error.next_step
    assert not known_hosts.exists()
    assert accept("social", host, error) == known_hosts
    assert known_hosts.read_text() == server.known_hosts_line()
    assert connects(server, known_hosts)


def test_accept_works_from_the_plain_error_too(server: OpenSSH, tmp_path: Path) -> None:
    host = server.host_config(known_hosts=tmp_path / "known_hosts")
    with pytest.raises(HostKeyUnknown) as caught:
        open_connection("social", host)
    seen = caught.value
    plain = HostKeyUnknown("", "", fingerprint="", key_type=seen.key_type, key_base64=seen.key_base64)
    accept("social", host, plain)
    assert connects(server, tmp_path / "known_hosts")


def test_changed_is_refused_loudly_with_both_fingerprints(server: OpenSSH, tmp_path: Path) -> None:
    other = server.make_key("other_host_key").with_name("other_host_key.pub")
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(server.known_hosts_line().rsplit(" ", 1)[0] + f" {other.read_text().split()[1]}\n")
    before = known_hosts.read_bytes()
    with pytest.raises(HostKeyChanged) as caught:
        connects(server, known_hosts)
    assert "CHANGED" in caught.value.sentence
    assert shown_by_ssh_keygen(other) in caught.value.sentence
    assert shown_by_ssh_keygen(server.host_key.with_name("host_key.pub")) in caught.value.sentence
    assert "ssh-keygen -R" in caught.value.next_step
    assert known_hosts.read_bytes() == before


def test_another_type_than_the_accepted_one_is_a_change(server: OpenSSH, tmp_path: Path) -> None:
    other = server.make_key("rsa_host_key", kind="rsa").with_name("rsa_host_key.pub").read_text().split()
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{server.port} {other[0]} {other[1]}\n")
    with pytest.raises(HostKeyChanged):
        connects(server, known_hosts)


def test_a_known_type_is_asked_for_first(tmp_path: Path) -> None:
    server = OpenSSH(tmp_path / "sshd", host_key_type="rsa", options=f"HostKey {tmp_path}/sshd/second")
    server.make_key("second")
    with server:
        # Both ed25519 and rsa are offered, and only rsa is known.
        assert connects(server, server.known_hosts)


def test_revoked_is_refused(server: OpenSSH, tmp_path: Path) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"{server.known_hosts_line()}@revoked * {server.known_hosts_line().split(' ', 1)[1]}")
    with pytest.raises(HostKeyChanged, match="REVOKED"):
        connects(server, known_hosts)


def test_hashed_names(server: OpenSSH, tmp_path: Path) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(server.known_hosts_line("[127.0.0.9]:1") + server.known_hosts_line())
    (keygen,) = need("ssh-keygen")
    subprocess.run([keygen, "-q", "-H", "-f", str(known_hosts)], check=True, capture_output=True)
    assert "127.0.0.1" not in known_hosts.read_text()
    assert connects(server, known_hosts)


def test_lines_of_every_kind_do_no_harm(server: OpenSSH, tmp_path: Path) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_bytes(
        b"# comment\n\n\xff\xfe garbage\n|1|bad|bad ssh-ed25519 AAAA\nhost\nhost ssh-ed25519\n"
        b"* ssh-ed25519 not-base64!\n@cert-authority * ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA\n@new * x y\n"
        b"sk sk-ssh-ed25519@openssh.com AAAA\n" + server.known_hosts_line().encode() + b"\0\0\0"
    )
    assert connects(server, known_hosts)


def test_a_key_known_without_the_port_is_good_for_any(server: OpenSSH, tmp_path: Path) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(server.known_hosts_line("127.0.0.1"))
    assert connects(server, known_hosts)


def test_the_users_configuration_names_the_file_and_the_name(
    server: OpenSSH, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(
        f"Host the-alias\n HostName 127.0.0.1\n Port {server.port}\n HostKeyAlias its-name\n"
        f" UserKnownHostsFile ~/empty ~/two\n IdentityFile {server.client_key}\n"
    )
    host = server.host_config(address="the-alias", identity_file=None, known_hosts=None)
    with pytest.raises(HostKeyUnknown) as caught:
        open_connection("social", host)
    (tmp_path / "two").write_text(server.known_hosts_line("its-name"))
    with open_connection("social", host) as connection:
        assert connection.run(Command(("true",))).status == 0
    (tmp_path / "two").unlink()
    assert accept("social", host, caught.value) == tmp_path / "empty"
    assert (tmp_path / "empty").read_text().startswith("its-name ")
    with open_connection("social", host):
        pass
