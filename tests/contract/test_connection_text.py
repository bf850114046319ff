"""Everything about connections that is read from text: addresses, known_hosts, ~/.ssh/config, key files, quoting."""

from __future__ import annotations

import base64
import contextlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from backends.config.schema import HostConfig
from backends.connection import known_hosts
from backends.connection.address import Address, parse_address
from backends.connection.base import Command
from backends.connection.checked import CheckedStream
from backends.connection.key_files import read_key_file
from backends.connection.secret_commands import secret_from
from backends.connection.ssh_config import load_ssh_config
from backends.connection.tail import StderrTail
from backends.connection.wrapper import Preamble, outer_marker, quote, valid_user, wrap
from backends.errors import ConfigurationError, ConnectionFailed, MastovaultError

KEY = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("social.example", Address("social.example")),
        ("me@social.example:2222", Address("social.example", "me", 2222)),
        ("me@corp@social.example", Address("social.example", "me@corp")),
        ("[2001:db8::1]:22", Address("2001:db8::1", None, 22)),
        ("me@[2001:db8::1]", Address("2001:db8::1", "me")),
        ("2001:db8::1", Address("2001:db8::1")),
        ("fe80::1%eth0", Address("fe80::1%eth0")),
        ("alias", Address("alias")),
    ],
)
def test_address(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "@", "me@", "@host", "host:", "host:0", "host:65536", "host:x", "[::1", "[::1]x", "-oProxyCommand=x", "a b"],
)
def test_address_that_is_none(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_address(text)
    assert caught.value.next_step


@pytest.mark.parametrize("text", ["me@-host", "-me@host", "host:２２", "h\0st", "h/st", "ho[st", "\x1b[31mred"])
def test_address_with_unfit_characters(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_address(text)
    assert "\x1b" not in caught.value.sentence


@given(st.text())
def test_any_text_is_an_address_or_one_sentence(text: str) -> None:
    try:
        address = parse_address(text)
    except ConfigurationError:
        return
    assert address.host
    assert not address.host.startswith("-")
    assert not any(character.isspace() for character in address.host)
    assert address.port is None or 1 <= address.port <= 65535


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)


@given(st.none() | NAMES, NAMES, st.none() | st.integers(1, 65535))
def test_address_written_and_read(user: str | None, host: str, port: int | None) -> None:
    text = (f"{user}@" if user else "") + host + (f":{port}" if port else "")
    assert parse_address(text) == Address(host, user, port)


@given(st.binary())
def test_known_hosts_of_anything(data: bytes) -> None:
    for entry in known_hosts.parse(data.decode("utf-8", "replace"), Path("f")):
        entry.speaks_of("host")
        known_hosts.fingerprint(entry.key)


_WORDS = ("host", "@revoked", "@cert-authority", "@new", "ssh-ed25519", "AAAA", "|1|x|y", "|1|AAAA|AAAA", "|1|", "||||")
_MORE = ("#", "!", "*", "!host", "host,*.x", "[host]:22", " ", "\t", "\n", "\0", "é", "=", ",", "[", "?" * 9, KEY)
WORDS = st.sampled_from(_WORDS + _MORE)


@given(st.lists(WORDS).map(" ".join))
def test_known_hosts_of_garbage(text: str) -> None:
    good = f"good.example ssh-ed25519 {KEY}"
    entries = list(known_hosts.parse(f"{text}\n{good}\n", Path("f")))
    assert [entry.speaks_of("good.example") for entry in entries][-1]
    for entry in entries:
        entry.speaks_of("host")


@given(st.text("ab*?", max_size=60), st.text("ab", max_size=60))
def test_patterns_take_no_time(pattern: str, name: str) -> None:
    entry = known_hosts.Entry("", (pattern,), "ssh-ed25519", b"", Path("f"), 1)
    entry.speaks_of(name)


@pytest.mark.parametrize(
    ("names", "name", "expected"),
    [
        ("host", "host", True),
        ("HOST", "host", True),
        ("*.example,other", "a.example", True),
        ("*.example", "example", False),
        ("*.example,!b.example", "b.example", False),
        ("*.example,!b.example", "a.example", True),
        ("h?st", "host", True),
        ("[host]:2222", "[host]:2222", True),
        ("[host]:2222", "host", False),
        ("[*.example]:22??", "[a.example]:2222", True),
        ("a*b*c*d*e*f*g*h*i*j*k*l*" * 20, "a" * 500, False),
    ],
)
def test_patterns(names: str, name: str, expected: bool) -> None:
    (entry,) = known_hosts.parse(f"{names} ssh-ed25519 {KEY}", Path("f"))
    assert entry.speaks_of(name) is expected


def test_a_key_is_added_after_a_last_line_without_end(tmp_path: Path) -> None:
    file = tmp_path / "new" / "known_hosts"
    known_hosts.append(file, "one", "ssh-ed25519", KEY)
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(file.read_text().rstrip("\n"))
    known_hosts.append(file, "two", "ssh-ed25519", KEY)
    assert file.read_text() == f"one ssh-ed25519 {KEY}\ntwo ssh-ed25519 {KEY}\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of one's own with an empty .ssh."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("backends.connection.ssh_config.SYSTEM_FILE", tmp_path / "system_config")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def configure(home: Path, text: str) -> None:
    (home / ".ssh" / "config").write_text(text)


def test_ssh_config_alias(home: Path) -> None:
    configure(
        home,
        """
        Host alias
            HostName real.example
            Port 2200
            User someone
            IdentityFile ~/.ssh/special_%h
            IdentitiesOnly yes
            HostKeyAlias the-key
            UserKnownHostsFile ~/kh1 "%d/kh2"
            ProxyJump first@one.example:2201,two.example
        """,
    )
    target = load_ssh_config().target(parse_address("alias"))
    assert (target.host, target.port, target.user) == ("real.example", 2200, "someone")
    assert target.identity_files == (home / ".ssh/special_real.example",)
    assert target.identities_only
    assert target.host_key_alias == "the-key"
    assert target.known_hosts == (home / "kh1", home / "kh2")
    assert target.jumps == (Address("one.example", "first", 2201), Address("two.example"))


def test_what_the_address_says_wins(home: Path) -> None:
    configure(home, "Host alias\n HostName real.example\n Port 2200\n User someone\n ProxyCommand nc %h %p %r\n")
    target = load_ssh_config().target(parse_address("me@alias:99"))
    assert (target.host, target.port, target.user) == ("real.example", 99, "me")
    assert target.proxy_command == "nc real.example 99 me"


def test_the_hosts_own_settings_win(home: Path) -> None:
    configure(home, "Host *\n IdentityFile ~/other\n UserKnownHostsFile ~/other\n")
    host = HostConfig(address="x", identity_file=Path("~/mine"), known_hosts=Path("~/known"))
    target = load_ssh_config().target(parse_address("x"), host)
    assert target.identity_files == (home / "mine",)
    assert target.known_hosts == (home / "known",)
    assert target.identities_only


def test_without_a_config_the_usual_names_count(home: Path) -> None:
    target = load_ssh_config().target(parse_address("x.example"))
    assert target.identity_files == tuple(home / ".ssh" / name for name in ("id_ed25519", "id_ecdsa", "id_rsa"))
    assert target.known_hosts[0] == home / ".ssh" / "known_hosts"
    assert (target.port, target.jumps, target.proxy_command, target.agent_socket) == (22, (), None, None)


def test_include_and_its_scope(home: Path) -> None:
    (home / ".ssh" / "conf.d").mkdir()
    (home / ".ssh" / "conf.d" / "a").write_text("Host inner\n Port 2201\n")
    configure(home, "Include conf.d/* ~/.ssh/not-there\nUser everybody\nHost outer\n Port 2202\nInclude config\n")
    config = load_ssh_config()
    assert config.target(parse_address("inner")).port == 2201
    assert config.target(parse_address("outer")).port == 2202
    assert config.target(parse_address("other")).user == "everybody"


def test_match_exec_asks_a_shell(home: Path) -> None:
    configure(home, 'Match exec "test %h = yes"\n Port 2201\nMatch originalhost no exec "exit 0"\n Port 2202\n')
    config = load_ssh_config()
    assert config.target(parse_address("yes")).port == 2201
    assert config.target(parse_address("no")).port == 2202
    assert config.target(parse_address("other")).port == 22


def test_the_system_file_comes_second(home: Path) -> None:
    configure(home, "Host a\n Port 1\n")
    (home / "system_config").write_text("Host *\n Port 2\n User system\n")
    target = load_ssh_config().target(parse_address("a"))
    assert (target.port, target.user) == (1, "system")


@pytest.mark.parametrize(
    "text", ["Host a\n Port x\n", "Port\n", "Match host\n Port 1", "Host 'a\n", "Port 70000", "ProxyJump a b c"]
)
def test_a_broken_ssh_config_is_one_sentence(home: Path, text: str) -> None:
    configure(home, text)
    with pytest.raises(ConfigurationError) as caught:
        load_ssh_config().target(parse_address("a"))
    assert caught.value.next_step


_CONFIG = "Host Match Port User Include all exec host * = 22 %h a ~ ProxyJump final canonical IdentityFile none # !"
CONFIG_WORDS = st.sampled_from([*_CONFIG.split(), "CanonicalizeHostname yes\n", "\n", "\\", '"', "'"])


@given(st.lists(CONFIG_WORDS).map(" ".join))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_any_ssh_config_gives_a_target_or_one_sentence(home: Path, text: str) -> None:
    if "exec" in text:
        text = text.replace("Match", "Port")
    configure(home, text)
    with contextlib.suppress(MastovaultError):
        load_ssh_config().target(parse_address("a"))


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@settings(max_examples=50, deadline=None)
def test_quoted_words_come_through_a_shell(text: str) -> None:
    done = subprocess.run(["/bin/sh", "-c", f"printf %s {quote(text)}"], capture_output=True, check=True)
    assert done.stdout.decode() == text


@given(st.text())
def test_user_names_hold_nothing_of_a_shell(text: str) -> None:
    if valid_user(text):
        assert quote(text) == f"'{text}'"
        assert not set(text) & set(" \n\t;&|<>()`\"'\\*?[]~#=%!{}/")
        assert not text.startswith("-")


@given(st.binary(max_size=200), st.integers(1, 50))
def test_the_preamble_is_found_in_noise_however_it_is_cut(noise: bytes, size: int) -> None:
    wrapped = wrap(Command(("true",)))
    marker = wrapped.marker.encode()
    outer = outer_marker(wrapped.marker).encode()
    stream = noise + outer + b" 41\n" + b"motd" + marker + b" 42 41\n" + b"the output\n" + marker
    preamble = Preamble(marker)
    for begin in range(0, len(stream), size):
        rest = preamble.feed(stream[begin : begin + size])
        if rest is not None:
            rest += stream[begin + size :]
            break
    assert rest == b"the output\n" + marker
    assert preamble.noise == noise + b"motd"
    assert (preamble.pid, preamble.group, preamble.outer_pid) == (42, 41, 41)


@pytest.mark.parametrize(
    ("line", "pid", "group"),
    [
        ("42 42", 42, 42),
        ("42 7", 42, None),
        ("42 1", 42, None),
        ("42 0", 42, None),
        ("42", 42, None),
        ("42 42 42", 42, 42),
        ("x y", None, None),
        ("", None, None),
        ("-1 -1", None, None),
        ("99999999999999999999 1", None, None),
    ],
)
def test_only_a_group_of_our_own_is_ever_ended(line: str, pid: int | None, group: int | None) -> None:
    wrapped = wrap(Command(("true",)))
    preamble = Preamble(wrapped.marker.encode())
    assert preamble.feed(f"{wrapped.marker} {line}\n".encode()) == b""
    assert (preamble.pid, preamble.group) == (pid, group)


class _Pieces:
    """A stream that hands out given pieces and ends with a status."""

    def __init__(self, pieces: list[bytes], status: int) -> None:
        self.tail = StderrTail()
        self._pieces = [piece for piece in pieces if piece]
        self._status = status

    def recv(self, size: int, timeout: float | None) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if len(piece) > size:
            self._pieces.insert(0, piece[size:])
        return piece[:size]

    def status(self, timeout: float | None) -> int:
        return self._status

    def send(self, data: bytes) -> None: ...
    def end_input(self) -> None: ...
    def interrupt(self) -> None: ...
    def abandon(self) -> None: ...
    def ended(self) -> bool:
        return not self._pieces


TRAILED = st.lists(st.sampled_from([b"end-1234", b"end-", b"e", b"end-123", b"4", b"x", b"\0\n", b"ee"]) | st.binary())


@given(TRAILED, st.lists(st.integers(1, 60), min_size=1), st.integers(1, 20), st.booleans(), st.sampled_from([0, 1]))
def test_checked_output_is_whole_or_an_error(
    words: list[bytes], cuts: list[int], size: int, whole: bool, status: int
) -> None:
    output = b"".join(words)
    # A random trailer is in no output.
    assume(b"end-1234" not in output)
    stream = output + (b"end-1234" if whole else b"")
    pieces: list[bytes] = []
    while stream:
        cut = cuts[len(pieces) % len(cuts)]
        pieces.append(stream[:cut])
        stream = stream[cut:]
    begun = pieces.pop(0) if pieces else b""
    checked = CheckedStream(_Pieces(pieces, status), b"end-1234", begun, "social")
    got = []
    with contextlib.ExitStack() as stack:
        if not whole and status == 0:
            stack.enter_context(pytest.raises(ConnectionFailed))
        while piece := checked.recv(size, None):
            assert len(piece) <= size
            got.append(piece)
    assert b"".join(got) == output


def test_noise_without_end_is_given_up() -> None:
    preamble = Preamble(b"marker")
    with pytest.raises(OverflowError):
        preamble.feed(bytes(1024 * 1024))


@given(st.lists(st.binary(max_size=300), max_size=30))
def test_stderr_tail_is_bounded_and_clean(pieces: list[bytes]) -> None:
    tail = StderrTail(b"marker\n", keep=100)
    for piece in [*pieces, b"\nmarker\n", *pieces]:
        tail.feed(piece)
    text = tail.text()
    assert len(text.split("\n")) <= 20
    assert text.replace("\n", "").isprintable()
    assert len(tail.kept()) <= 100


@pytest.mark.parametrize(
    ("content", "encrypted"), [("", False), ("garbage", False), ("-----BEGIN OPENSSH PRIVATE KEY-----\nxx\n", False)]
)
def test_a_key_file_that_is_none(tmp_path: Path, content: str, encrypted: bool) -> None:
    (tmp_path / "key").write_text(content)
    assert read_key_file(tmp_path / "key").encrypted is encrypted


@given(st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_key_file_of_anything(tmp_path: Path, data: bytes) -> None:
    blob = base64.b64encode(b"openssh-key-v1\0" + data)
    (tmp_path / "key").write_bytes(b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + blob + b"\n-----END")
    read_key_file(tmp_path / "key")


def test_a_secret_comes_from_a_command() -> None:
    assert secret_from("printf 'pass word\\n\\n'", "x").reveal() == "pass word\n"
    assert secret_from("printf '$HOME'", "x").reveal() == "$HOME"


@pytest.mark.parametrize("command", ["", "'", "no-such-program", "false", "true", "sh -c 'echo hidden; exit 3'"])
def test_a_command_that_gives_no_secret_is_one_sentence(command: str) -> None:
    with pytest.raises(ConfigurationError, match="password_command") as caught:
        secret_from(command, "password_command")
    assert caught.value.next_step
    assert "hidden" not in caught.value.sentence
