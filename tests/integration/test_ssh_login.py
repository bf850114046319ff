"""Logging in to a real sshd: keys, agent, passphrases, passwords, and what is said when nothing helps."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.connection.base import Command
from backends.connection.open import open_connection
from backends.errors import ConfigurationError, LoginRefused
from backends.model import Secret
from tests.servers.need import need
from tests.servers.openssh import OpenSSH
from tests.servers.users import Users

PASSPHRASE = "correct horse"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSH]:
    with OpenSSH(tmp_path_factory.mktemp("sshd")) as running:
        encrypted = running.make_key("encrypted", passphrase=PASSPHRASE)
        running.authorize(encrypted)
        running.make_key("stranger")
        yield running


@pytest.fixture(autouse=True)
def no_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    (program,) = need("ssh-agent")
    path = str(tmp_path_factory.mktemp("a") / "s")
    with subprocess.Popen([program, "-D", "-a", path], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        yield path
        process.terminate()


def add_to_agent(key: Path) -> None:
    subprocess.run([*need("ssh-add"), "-q", str(key)], check=True, stdin=subprocess.DEVNULL)


def works(server: OpenSSH, **settings: Any) -> bool:
    with open_connection("social", server.host_config(**settings)) as connection:
        return connection.run(Command(("true",))).status == 0


def test_an_encrypted_key_with_a_command(server: OpenSSH) -> None:
    assert works(
        server, identity_file=server.directory / "encrypted", key_passphrase_command=f"printf '{PASSPHRASE}\\n'"
    )


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_keys(server: OpenSSH, kind: str) -> None:
    key = server.make_key(f"client_{kind}", kind=kind, passphrase=PASSPHRASE)
    server.authorize(key)
    assert works(server, identity_file=key, key_passphrase_command=f"printf '{PASSPHRASE}'")


def test_an_encrypted_pem_key(server: OpenSSH) -> None:
    key = server.make_key("pem", kind="rsa")
    subprocess.run([*need("ssh-keygen"), "-q", "-p", "-m", "PEM", "-N", PASSPHRASE, "-f", str(key)], check=True)
    assert b"ENCRYPTED" in key.read_bytes()
    server.authorize(key)
    assert works(server, identity_file=key, key_passphrase_command=f"printf '{PASSPHRASE}'")


def test_an_encrypted_key_with_somebody_to_ask(server: OpenSSH) -> None:
    questions: list[str] = []

    def ask(question: str) -> Secret:
        questions.append(question)
        return Secret(PASSPHRASE)

    host = server.host_config(identity_file=server.directory / "encrypted")
    with open_connection("social", host, ask=ask):
        pass
    assert len(questions) == 1
    assert "encrypted" in questions[0]
    assert "social" in questions[0]


def test_an_encrypted_key_with_nobody_to_ask(server: OpenSSH) -> None:
    with pytest.raises(LoginRefused) as caught:
        works(server, identity_file=server.directory / "encrypted")
    assert "encrypted, and no passphrase was given" in caught.value.sentence
    assert "ssh-add" in caught.value.next_step
    assert "key_passphrase_command" in caught.value.next_step


def test_a_wrong_passphrase(server: OpenSSH) -> None:
    with pytest.raises(LoginRefused, match="its passphrase is wrong") as caught:
        works(server, identity_file=server.directory / "encrypted", key_passphrase_command="echo wrong-passphrase")
    assert "wrong-passphrase" not in caught.value.sentence + caught.value.next_step


def test_a_failing_passphrase_command(server: OpenSSH) -> None:
    with pytest.raises(ConfigurationError, match="key_passphrase_command of social failed with status 3"):
        works(server, identity_file=server.directory / "encrypted", key_passphrase_command="sh -c 'exit 3'")


def test_a_key_of_the_agent(server: OpenSSH, agent: str) -> None:
    add_to_agent(server.directory / "stranger")
    add_to_agent(server.client_key)
    assert works(server, identity_file=None)


def test_the_agent_opens_an_encrypted_key(server: OpenSSH, agent: str, tmp_path: Path) -> None:
    askpass = tmp_path / "askpass"
    askpass.write_text(f"#!/bin/sh\necho '{PASSPHRASE}'\n")
    askpass.chmod(0o700)
    environment = {**os.environ, "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    argv = [*need("ssh-add"), "-q", str(server.directory / "encrypted")]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, env=environment)
    assert works(server, identity_file=server.directory / "encrypted")


def test_many_keys_in_the_agent_do_not_use_up_the_attempts(server: OpenSSH, agent: str) -> None:
    for number in range(8):
        add_to_agent(server.make_key(f"many{number}"))
    add_to_agent(server.client_key)
    assert works(server, identity_file=server.client_key)
    with pytest.raises(LoginRefused) as caught:
        works(server, identity_file=None)
    assert "many0" in caught.value.sentence
    assert "identity_file" in caught.value.next_step


def test_an_agent_that_is_gone(server: OpenSSH, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nonexistent/agent")
    assert works(server)


def test_refused_says_what_was_tried(server: OpenSSH) -> None:
    with pytest.raises(LoginRefused) as caught:
        works(server, identity_file=server.directory / "stranger")
    assert "stranger" in caught.value.sentence
    assert "the server accepts publickey" in caught.value.sentence
    assert "ssh " in caught.value.next_step


def test_refused_for_want_of_any_key(server: OpenSSH) -> None:
    with pytest.raises(LoginRefused, match="there was no key"):
        works(server, identity_file=None)


def test_a_key_file_that_is_not_there(server: OpenSSH, tmp_path: Path) -> None:
    with pytest.raises(LoginRefused, match="cannot be read"):
        works(server, identity_file=tmp_path / "nowhere")


@pytest.fixture(scope="module")
def users() -> Iterator[Users]:
    with Users() as made:
        yield made


@pytest.fixture(scope="module", params=["password", "keyboard-interactive", "key and password"])
def with_password(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, users: Users
) -> Iterator[OpenSSH]:
    options = {
        "password": "PasswordAuthentication yes\nPubkeyAuthentication no",
        "keyboard-interactive": "UsePAM yes\nKbdInteractiveAuthentication yes\nPubkeyAuthentication no",
        "key and password": "PasswordAuthentication yes\nAuthenticationMethods publickey,password",
    }
    with OpenSSH(tmp_path_factory.mktemp("sshd"), options=options[request.param]) as running:
        yield running


@pytest.mark.root
def test_a_password_from_a_command(with_password: OpenSSH, users: Users) -> None:
    assert works(with_password, user=users.login, password_command=f"echo '{users.password}'")


@pytest.mark.root
def test_a_password_that_is_asked_for(with_password: OpenSSH, users: Users) -> None:
    host = with_password.host_config(user=users.login)
    with open_connection("social", host, ask=lambda _question: Secret(users.password)) as connection:
        assert connection.run(Command(("id", "-un"))).text.strip() == users.login


@pytest.mark.root
def test_a_wrong_password(with_password: OpenSSH, users: Users) -> None:
    with pytest.raises(LoginRefused) as caught:
        works(with_password, user=users.login, password_command="echo wrong-password")
    assert "wrong-password" not in caught.value.sentence
    with pytest.raises(LoginRefused):
        works(with_password, user=users.login)
