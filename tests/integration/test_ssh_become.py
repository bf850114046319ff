"""sudo and su, with and without a password, over a real sshd and on this machine's own sudo."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.connection.base import Command, Connection, Process, sh
from backends.connection.open import open_connection
from backends.errors import BecomeRefused, ConfigurationError, ConnectionFailed
from backends.model import Secret
from tests.contract.test_connection import first_line, gone, until
from tests.servers.openssh import OpenSSH
from tests.servers.users import Users

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def users() -> Iterator[Users]:
    with Users() as made:
        yield made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, users: Users) -> Iterator[OpenSSH]:
    with OpenSSH(tmp_path_factory.mktemp("sshd")) as running:
        yield running


def opened(server: OpenSSH, users: Users, *, ask: Any = None, **settings: Any) -> Connection:
    return open_connection("social", server.host_config(user=users.login, **settings), ask=ask)


def check_work(connection: Connection, user: str) -> None:
    """Streams, secrets, status and the end of a command, all as another user."""
    script = 'id -un; pwd; echo "$HOME"; printf "%s\\n" "$P"; cat; echo err >&2; exit 3'
    done = connection.run(Command(sh(script), as_user=user, secret_env={"P": Secret("p 'w\\")}), stdin=b"in\nput")
    assert done.text.splitlines() == [user, "/", f"/home/{user}", "p 'w\\", "in", "put"]
    assert (done.status, done.stderr) == (3, b"err\n")
    with connection.start(Command(sh("cat; head -c 3000000 /dev/zero"), as_user=user)) as process:
        process.write(b"x" * 100_000)
        process.close_stdin()
        assert len(process.read()) == 3_100_000
        assert process.wait(5) == 0
    check_end(connection.start(Command(sh("sleep 1000 & echo $$ $!; wait"), as_user=user)))


def check_end(process: Process) -> None:
    pids = [int(pid) for pid in first_line(process).split()]
    assert not any(gone(pid) for pid in pids)
    process.terminate()
    assert until(lambda: all(gone(pid) for pid in pids), 1)


@pytest.mark.parametrize("options", ["", "Defaults:{login} use_pty"])
def test_sudo_without_a_password(server: OpenSSH, users: Users, options: str) -> None:
    users.allow("{login} ALL=({other}) NOPASSWD: ALL", *([options] if options else []))
    with opened(server, users, become="sudo") as connection:
        check_work(connection, users.other)


def test_output_that_sudo_loses_is_an_error(server: OpenSSH, users: Users) -> None:
    # With log_output sudo copies the output, and 1.9.13 loses the end of it now and then, with status 0.
    users.allow("{login} ALL=({other}) NOPASSWD: ALL", "Defaults:{login} !use_pty, log_output")
    with opened(server, users, become="sudo") as connection:
        for _ in range(8):
            process = connection.start(Command(("head", "-c", "3000000", "/dev/zero"), as_user=users.other))
            with process, contextlib.suppress(ConnectionFailed):
                assert len(process.read()) == 3_000_000
                assert process.wait(5) == 0


@pytest.mark.parametrize("options", ["", "Defaults:{login} use_pty"])
def test_sudo_with_a_password(server: OpenSSH, users: Users, options: str, tmp_path: Path) -> None:
    users.allow("{login} ALL=({other}) ALL", *([options] if options else []))
    with opened(server, users, become="sudo", become_password_command=f"echo '{users.password}'") as connection:
        check_work(connection, users.other)


def test_a_password_is_asked_for_once(server: OpenSSH, users: Users) -> None:
    users.allow("{login} ALL=({other}) ALL")
    questions: list[str] = []

    def ask(question: str) -> Secret:
        questions.append(question)
        return Secret(users.password)

    with opened(server, users, become="sudo", ask=ask) as connection:
        results: list[bytes] = []

        def one() -> None:
            results.append(connection.run(Command(("id", "-un"), as_user=users.other)).stdout)

        threads = [threading.Thread(target=one) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [f"{users.other}\n".encode()] * 5
    assert len(questions) == 1
    assert "sudo" in questions[0]


def test_a_password_that_sudo_does_not_want_is_no_input(server: OpenSSH, users: Users) -> None:
    users.allow("{login} ALL=({other}) ALL")
    with opened(server, users, become="sudo", become_password_command=f"echo '{users.password}'") as connection:
        assert connection.run(Command(("true",), as_user=users.other)).status == 0
        # From now on sudo asks for nothing; what we send all the same must not reach the command.
        users.allow("{login} ALL=({other}) NOPASSWD: ALL")
        done = connection.run(Command(("cat",), as_user=users.other), stdin=b"the input")
    assert done.stdout == b"the input"


def refused(server: OpenSSH, users: Users, **settings: Any) -> BecomeRefused:
    with opened(server, users, **settings) as connection, pytest.raises(BecomeRefused) as caught:
        connection.run(Command(("id",), as_user=users.other))
    assert "\n" not in caught.value.sentence
    assert users.password not in caught.value.sentence
    assert caught.value.next_step
    return caught.value


def test_none_is_refused_with_a_line_for_sudoers(server: OpenSSH, users: Users) -> None:
    error = refused(server, users)
    assert f"{users.login} ALL=({users.other}) NOPASSWD: ALL" in error.next_step


def test_sudo_that_needs_a_password_nobody_gives(server: OpenSSH, users: Users) -> None:
    users.allow("{login} ALL=({other}) ALL")
    error = refused(server, users, become="sudo")
    assert "password" in error.sentence
    assert "become_password_command" in error.next_step


def test_sudo_with_a_wrong_password(server: OpenSSH, users: Users) -> None:
    users.allow("{login} ALL=({other}) ALL")
    begin = time.monotonic()
    error = refused(server, users, become="sudo", become_password_command="echo not-the-password")
    assert time.monotonic() - begin < 15, "sudo must not wait for a second one"
    assert "not-the-password" not in error.sentence
    assert "sudo" in error.sentence


def test_not_in_sudoers(server: OpenSSH, users: Users) -> None:
    users.allow("# nobody")
    error = refused(server, users, become="sudo", become_password_command=f"echo '{users.password}'")
    assert "sudo" in error.sentence


def test_requiretty(server: OpenSSH, users: Users) -> None:
    users.allow("{login} ALL=({other}) NOPASSWD: ALL", "Defaults:{login} requiretty")
    assert "tty" in refused(server, users, become="sudo").sentence


def test_a_failing_password_command(server: OpenSSH, users: Users) -> None:
    users.allow("{login} ALL=({other}) ALL")
    with opened(server, users, become="sudo", become_password_command="false") as connection:
        with pytest.raises(ConfigurationError, match="become_password_command"):
            connection.run(Command(("id",), as_user=users.other))
        assert connection.run(Command(("id", "-un"))).text.strip() == users.login


def test_su(server: OpenSSH, users: Users) -> None:
    settings = {"become": "su", "become_user": users.other}
    with opened(server, users, become_password_command=f"echo '{users.password}'", **settings) as connection:
        check_work(connection, users.other)


def test_su_with_a_wrong_password(server: OpenSSH, users: Users) -> None:
    settings = {"become": "su", "become_user": users.other}
    error = refused(server, users, become_password_command="echo not-the-password", **settings)
    assert "not-the-password" not in error.sentence
    assert "su" in error.sentence


def test_su_to_one_who_cannot_become_the_other(server: OpenSSH, users: Users) -> None:
    assert "become_user" in refused(server, users, become="su", become_user="nobody").next_step


def test_what_needs_no_right_uses_none(server: OpenSSH, users: Users) -> None:
    users.allow("# nobody")
    with opened(server, users, become="sudo") as connection:
        assert connection.run(Command(("id", "-un"), as_user=users.login)).text.strip() == users.login
