"""What every connection must do, over a real OpenSSH server, the lab's SSH server, and on this machine."""

from __future__ import annotations

import hashlib
import os
import pwd
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from backends.config.load import load
from backends.config.schema import HostConfig
from backends.connection.base import Command, Connection, Process, sh
from backends.connection.open import open_connection
from backends.errors import BecomeRefused, Cancelled, CommandFailed, ConnectionFailed
from backends.model import Secret
from tests.servers.openssh import OpenSSH

MIB = 1024 * 1024


@pytest.fixture(scope="module", params=["openssh", "lab", "local"])
def connection(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    if request.param == "openssh":
        with OpenSSH(tmp_path_factory.mktemp("sshd")) as server, open_connection("it", server.host_config()) as opened:
            yield opened
    elif request.param == "lab":
        lab = request.getfixturevalue("lab")
        name, host = next((name, host) for name, host in load(lab.config_file).hosts.items() if lab.hosts[name].online)
        with open_connection(name, host) as opened:
            yield opened
    else:
        with open_connection("it", HostConfig(address="local")) as opened:
            yield opened


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(holds: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def first_line(process: Process) -> str:
    line = b""
    while not line.endswith(b"\n"):
        got = process.read(1)
        assert got
        line += got
    return line.decode().strip()


def test_run_gives_status_and_both_streams(connection: Connection) -> None:
    done = connection.run(Command(sh("echo out; echo err >&2; exit 7")))
    assert (done.status, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_arguments_arrive_as_they_are(connection: Connection) -> None:
    awkward = [
        "a b",
        "it's",
        'say "x"',
        "back\\slash\\",
        "two\nlines",
        "$HOME `id` $(id) !!",
        "*?[",
        "",
        "-n",
        "é€",
        "#;&|<>",
    ]
    done = connection.run(Command(("printf", "%s\\0", *awkward)))
    assert done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1] == awkward


def test_arguments_need_not_be_utf8(connection: Connection, request: pytest.FixtureRequest) -> None:
    if "lab" in request.node.name:
        pytest.skip("the lab's SSH server takes commands in UTF-8 only")
    assert connection.run(Command(("printf", "%s", "\udcff/\udc80"))).stdout == b"\xff/\x80"


def test_ordinary_variables(connection: Connection) -> None:
    done = connection.run(Command(sh('printf %s "$LC_TEST-$OTHER"'), env={"LC_TEST": "a b", "OTHER": "$x'\""}))
    assert done.stdout == b"a b-$x'\""


def test_secret_variables_arrive_and_leave_stdin_alone(connection: Connection) -> None:
    values = {"FIRST": Secret(" leading, $x \\ 'q' \"d\" ā€ "), "SECOND": Secret("")}
    stdin = b"line 1\n\0binary \xff and no end of line"
    done = connection.run(Command(sh('printf "%s|%s|" "$FIRST" "$SECOND"; cat'), secret_env=values), stdin=stdin)
    assert done.stdout == f"{values['FIRST'].reveal()}||".encode() + stdin


def test_secrets_are_in_no_command_line(connection: Connection) -> None:
    secret = f"secret-{os.urandom(8).hex()}"
    seen: list[str] = []
    looked = threading.Event()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    try:
                        line = (entry / "cmdline").read_bytes()
                    except OSError:
                        continue
                    if secret.encode() in line:
                        seen.append(line.decode("utf-8", "replace"))
            looked.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(5):
            command = Command(sh('test -n "$PGPASSWORD"; sleep 0.05'), secret_env={"PGPASSWORD": Secret(secret)})
            assert connection.run(command).status == 0
        assert looked.wait(10)
    finally:
        stop.set()
        watcher.join()
    assert not seen


def test_a_secret_of_several_lines_is_refused_without_showing_it(connection: Connection) -> None:
    with pytest.raises(ValueError, match="PGPASSWORD") as caught:
        connection.run(Command(("true",), secret_env={"PGPASSWORD": Secret("abc\ndef")}))
    assert "abc" not in str(caught.value)


def test_a_missing_program_is_status_127(connection: Connection) -> None:
    done = connection.run(Command(("no-such-program-here", "x")))
    assert done.status == 127
    assert b"no-such-program-here" in done.stderr
    assert connection.has("sh")
    assert not connection.has("no-such-program-here")


def test_check_says_what_failed(connection: Connection) -> None:
    with pytest.raises(CommandFailed) as caught:
        connection.check(Command(sh("echo first >&2; printf 'the \\033[31mreason' >&2; exit 4")), what="the thing")
    assert caught.value.status == 4
    assert "the thing failed" in caught.value.sentence
    assert "reason" in caught.value.sentence
    assert "\x1b" not in caught.value.sentence + caught.value.stderr


def test_big_output_and_big_input(connection: Connection) -> None:
    data = os.urandom(MIB) * 24
    received = hashlib.sha256()
    with connection.start(Command(("cat",))) as process:

        def feed() -> None:
            process.write(data)
            process.close_stdin()

        feeder = threading.Thread(target=feed)
        feeder.start()
        size = 0
        while piece := process.read(MIB):
            assert len(piece) <= MIB
            received.update(piece)
            size += len(piece)
        feeder.join(10)
        assert process.wait(10) == 0
    assert size == len(data)
    assert received.digest() == hashlib.sha256(data).digest()


def test_big_stdin_for_run(connection: Connection) -> None:
    data = os.urandom(3 * MIB)
    assert (
        connection.run(Command(("sha256sum",)), stdin=data).stdout.split()[0]
        == hashlib.sha256(data).hexdigest().encode()
    )


def test_a_command_that_ignores_its_stdin(connection: Connection) -> None:
    assert connection.run(Command(("echo", "done")), stdin=bytes(3 * MIB)).stdout == b"done\n"


def test_read_returns_what_is_there(connection: Connection) -> None:
    with connection.start(Command(sh("echo one; read -r x; echo two"))) as process:
        assert process.read(MIB) == b"one\n"
        process.write(b"go\n")
        assert process.read(MIB) == b"two\n"
        assert process.read(MIB) == b""
        assert process.read(MIB) == b""
        assert process.wait(5) == 0


def test_read_without_a_size_reads_all(connection: Connection) -> None:
    with connection.start(Command(sh("echo one; echo two"))) as process:
        assert process.read() == b"one\ntwo\n"


def test_stderr_is_followed_bounded_and_cleaned(connection: Connection) -> None:
    pieces: list[bytes] = []
    script = (
        'i=0; while [ $i -lt 5000 ]; do echo "line $i" >&2; i=$((i+1)); done; printf "last \\033]0;x\\007 [/b]" >&2'
    )
    process = connection.start(Command(sh(f"({script}) >&2")), on_stderr=pieces.append)
    with process:
        assert process.read() == b""
        assert process.wait(30) == 0
        followed = b"".join(pieces).decode()
        tail = process.stderr_tail().splitlines()
    assert followed.startswith("line 0\nline 1\n")
    assert followed.endswith("line 4999\nlast \x1b]0;x\x07 [/b]")
    assert len(tail) == 20
    assert tail[-2] == "line 4999"
    assert tail[-1] == "last �]0;x� [/b]"


def test_much_stderr_does_not_block(connection: Connection) -> None:
    with connection.start(Command(sh("head -c 70000000 /dev/zero >&2; echo done"))) as process:
        assert process.read() == b"done\n"
        assert process.wait(10) == 0


def test_end_by_a_signal(connection: Connection) -> None:
    with connection.start(Command(sh("kill -9 $$"))) as process:
        assert process.read() == b""
        assert process.wait(5) == -1


def test_wait_has_a_timeout(connection: Connection) -> None:
    with connection.start(Command(("sleep", "60"))) as process, pytest.raises(TimeoutError):
        process.wait(0.05)


def test_run_ends_what_takes_too_long(connection: Connection) -> None:
    begin = time.monotonic()
    mark = os.urandom(4).hex()
    with pytest.raises(CommandFailed, match=r"longer than 0\.3 seconds"):
        connection.run(Command(sh("echo x >&2; exec sleep 100", mark)), timeout=0.3)
    assert time.monotonic() - begin < 5


def test_run_ends_what_writes_too_much(connection: Connection) -> None:
    with pytest.raises(CommandFailed, match="more than 1000 bytes"):
        connection.run(Command(("yes",)), limit=1000)


@pytest.mark.parametrize("stubborn", [False, True])
def test_terminate_ends_the_command_and_its_children(connection: Connection, stubborn: bool) -> None:
    trap = "trap '' TERM; " if stubborn else ""
    process = connection.start(Command(sh(f"{trap}sleep 1000 & echo $$ $!; wait; sleep 1000")))
    pids = [int(pid) for pid in first_line(process).split()]
    assert not any(gone(pid) for pid in pids)
    begin = time.monotonic()
    process.terminate()
    assert until(lambda: all(gone(pid) for pid in pids), 1)
    assert time.monotonic() - begin < 7
    process.terminate()
    process.wait(1)
    with pytest.raises(Cancelled):
        process.read(1)
    assert connection.run(Command(("echo", "still here"))).stdout == b"still here\n"


def test_terminate_frees_a_blocked_reader_and_writer(connection: Connection) -> None:
    process = connection.start(Command(("sleep", "1000")))
    results: list[object] = []

    def blocked(action: Callable[[], object]) -> None:
        try:
            results.append(action())
        except Cancelled as error:
            results.append(error)

    threads = [
        threading.Thread(target=blocked, args=(lambda: process.read(10),)),
        threading.Thread(target=blocked, args=(lambda: process.write(bytes(80 * MIB)),)),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    process.terminate()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert [type(result) for result in results] == [Cancelled, Cancelled]


def test_leaving_the_block_ends_the_command(connection: Connection) -> None:
    with connection.start(Command(sh("echo $$; exec sleep 1000"))) as process:
        pid = int(first_line(process))
    assert until(lambda: gone(pid), 1)


def test_writing_to_a_command_that_ended(connection: Connection) -> None:
    with connection.start(Command(sh("exit 5"))) as process:
        assert process.wait(5) == 5
        with pytest.raises(BrokenPipeError):
            process.write(bytes(10 * MIB))


def test_many_commands_at_once(connection: Connection) -> None:
    def one(number: int) -> bytes:
        return connection.run(Command(sh('sleep 0.1; echo "$1"', str(number)))).stdout

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(one, range(24))) == [f"{number}\n".encode() for number in range(24)]


def test_tunnel_to_tcp(connection: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        with closing(connection.open_tcp("127.0.0.1", server.getsockname()[1])) as opened:
            _check_echo(opened)


def test_tunnel_to_a_unix_socket(connection: Connection, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        with closing(connection.open_unix(path)) as opened:
            _check_echo(opened)


def test_tunnel_notices_that_the_far_end_closed(connection: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        opened = connection.open_tcp("127.0.0.1", server.getsockname()[1])
        accepted, _ = server.accept()
    with closing(opened):
        accepted.sendall(b"bye")
        accepted.close()
        opened.settimeout(5)
        assert opened.recv(10) == b"bye"
        assert opened.recv(10) == b""


def test_tunnel_closed_here_closes_there(connection: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        opened = connection.open_tcp("127.0.0.1", server.getsockname()[1])
        accepted, _ = server.accept()
        opened.close()
        accepted.settimeout(5)
        with closing(accepted):
            assert accepted.recv(1) == b""


def test_tunnel_to_nothing(connection: Connection, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionFailed) as caught:
            connection.open_tcp("127.0.0.1", unused.getsockname()[1])
    assert caught.value.next_step
    with pytest.raises(ConnectionFailed):
        connection.open_unix(str(tmp_path / "nothing"))


def test_as_the_login_user_nothing_is_needed(connection: Connection) -> None:
    done = connection.run(Command(("id", "-un"), as_user=connection.login_user))
    assert done.stdout.decode().strip() == connection.login_user


def test_as_a_user_that_is_none(connection: Connection) -> None:
    for name in ("no-such-user-here", "x; id", "-x", "$(id)"):
        with pytest.raises(BecomeRefused) as caught:
            connection.run(Command(("id",), as_user=name))
        assert caught.value.next_step


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it runs commands as nobody")
def test_root_runs_commands_as_somebody_else(connection: Connection, request: pytest.FixtureRequest) -> None:
    if "lab" in request.node.name:
        pytest.skip("a lab host has one user")
    command = Command(
        sh('id -un; pwd; printf "%s\n" "$HOME" "$USER" "$P"; cat'), as_user="nobody", secret_env={"P": Secret("p w")}
    )
    done = connection.run(command, stdin=b"input\n")
    assert done.stdout.decode().splitlines() == ["nobody", "/", pwd.getpwnam("nobody").pw_dir, "nobody", "p w", "input"]
    process = connection.start(Command(sh("echo $$; exec sleep 1000"), as_user="nobody"))
    pid = int(first_line(process))
    process.terminate()
    assert until(lambda: gone(pid), 1)


def _echo(server: socket.socket) -> None:
    accepted, _ = server.accept()
    with accepted:
        while data := accepted.recv(65536):
            accepted.sendall(data)


def _check_echo(opened: socket.socket) -> None:
    opened.settimeout(10)
    data = os.urandom(2 * MIB)
    sender = threading.Thread(target=opened.sendall, args=(data,))
    sender.start()
    received = bytearray()
    while len(received) < len(data):
        piece = opened.recv(65536)
        assert piece
        received += piece
    sender.join()
    assert bytes(received) == data
    opened.shutdown(socket.SHUT_WR)
    assert opened.recv(1) == b""
