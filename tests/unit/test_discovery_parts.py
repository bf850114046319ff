"""What systemctl, docker and version.rb say, read from text that nobody vouches for."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.config.schema import HostConfig
from backends.connection.base import Command, Completed
from backends.connection.local import LocalConnection
from backends.errors import CommandFailed
from backends.mastodon.environment import effective
from backends.mastodon.host_files import read_files
from backends.mastodon.installation import InstallKind
from backends.mastodon.kinds import kind_of
from backends.mastodon.look import Container, Look, look, parse_look
from backends.mastodon.systemd import parse_environment, parse_environment_file, parse_units
from backends.mastodon.version import at_least, parse_version
from backends.model import Secret

# As systemd 252 prints it.
SHOW = """\
Id=cron.service
User=
WorkingDirectory=
Environment=
ExecStart={ path=/usr/sbin/cron ; argv[]=/usr/sbin/cron -f $EXTRA_OPTS ; ignore_errors=no ; status=0/0 }
ActiveState=active

Id=mastodon-sidekiq.service
User=mastodon
WorkingDirectory=/home/mastodon/live
Environment=RAILS_ENV=production DB_POOL=25 MALLOC_ARENA_MAX=2
ExecStart={ path=/home/mastodon/.rbenv/shims/bundle ; argv[]=/home/mastodon/.rbenv/shims/bundle exec sidekiq -c 25 ; }
ActiveState=active
FragmentPath=/etc/systemd/system/mastodon-sidekiq.service
DropInPaths=/etc/systemd/system/mastodon-sidekiq.service.d/override.conf /etc/systemd/system/service.d/10.conf

Id=mastodon-web.service
User=mastodon
WorkingDirectory=!/home/mastodon/live
Environment=RAILS_ENV=production PORT=3000 "SMTP_FROM=a b"
EnvironmentFiles=/etc/mastodon/secrets.env (ignore_errors=no)
EnvironmentFiles=/etc/default/mastodon (ignore_errors=yes)
ExecStart={ path=/home/mastodon/.rbenv/shims/bundle ; argv[]=bundle exec puma -C config/puma.rb ; ignore_errors=no }
ActiveState=active
"""


def test_units() -> None:
    units = {unit.id: unit for unit in parse_units(SHOW)}
    web, sidekiq = units["mastodon-web.service"], units["mastodon-sidekiq.service"]
    assert next(iter(units)) == "mastodon-web.service"
    assert (web.user, web.directory, web.active) == ("mastodon", "/home/mastodon/live", True)
    assert web.environment_files == ("/etc/mastodon/secrets.env", "/etc/default/mastodon")
    assert web.environment["SMTP_FROM"] == Secret("a b")
    assert sidekiq.drop_ins[0] == "/etc/systemd/system/mastodon-sidekiq.service.d/override.conf"
    assert sidekiq.may_serve
    assert not units["cron.service"].may_serve


@given(st.text())
def test_any_text_gives_units(text: str) -> None:
    parse_units("Id=a\nExecStart=x\n" + text)
    parse_environment(text)


def test_environment_file() -> None:
    text = b"""\
# comment
; comment
A=1
 B = no
C='x y' # kept after a closing quote
D="a \\"b\\" \\$c \\x"
E=one \\
two
export F=no
G=a b \x20
H='multi
line'
"""
    read = {name: value.reveal() for name, value in parse_environment_file(text, name="x").values.items()}
    assert read == {
        "A": "1",
        "C": "x y # kept after a closing quote",
        "D": 'a "b" $c \\x',
        "E": "one two",
        "G": "a b",
        "H": "multi\nline",
    }


@given(st.binary(max_size=300))
def test_any_bytes_are_an_environment_file(content: bytes) -> None:
    parse_environment_file(content, name="x")


def test_what_comes_first_wins_across_files() -> None:
    files = [
        ("/etc/a", "systemd", b"A=unit\n"),
        ("/etc/b", "systemd", b"B=second\n"),
        ("/x/.env.production.local", "dotenv", b"A=no\nC=local\nD=$B\n"),
        ("/x/.env.production", "dotenv", b"C=no\nE=$C\n"),
        ("/x/drop-in.conf", "raw", b"[Service]\nEnvironment=F=no\n"),
    ]
    found = effective(files, {"B": Secret("first"), "P": Secret("process")})
    assert {name: value.reveal() for name, value in found.values.items()} == {
        "A": "unit",
        "B": "second",
        "P": "process",
        "C": "local",
        "D": "second",
        "E": "local",
    }


VERSION = """\
    def major
      4
    end

    def minor
      7
    end

    def patch
      0
    end

    def default_prerelease
      '{}'
    end
"""


def test_version() -> None:
    assert parse_version(VERSION.format("").encode()) == "4.7.0"
    assert parse_version(VERSION.format("alpha.2").encode()) == "4.7.0-alpha.2"
    assert (
        parse_version(b"def major\n 4\nend\ndef minor\n 0\nend\ndef patch\n 2\nend\ndef flags\n 'rc1'\nend")
        == "4.0.2-rc1"
    )
    assert parse_version(b"") == ""


@given(st.binary())
def test_any_bytes_are_a_version_file(content: bytes) -> None:
    parse_version(content)
    parse_version(VERSION.format("").encode() + content)


def test_versions_compare_by_number() -> None:
    assert at_least("4.10.0", 4, 3)
    assert at_least("4.3.0-beta.1", 4, 3)
    assert at_least("3.5.19", 4, 3) is False
    assert at_least("", 4, 3) is None


class Hostile(LocalConnection):
    """Answers everything with the same bytes, in which MARK becomes the marker."""

    def __init__(self, answer: bytes) -> None:
        super().__init__("social", HostConfig(address="local"), None)
        self.answer = answer

    def run(self, command: Command, **options: Any) -> Completed:
        mark = next(word for word in command.argv if word.startswith("mastovault-"))
        return Completed(0, self.answer.replace(b"MARK", mark.encode()), b"")


_ANSWERS = st.lists(
    st.sampled_from(
        [
            b"\nMARK ",
            b"read ",
            b"large ",
            b"absent ",
            b"end ",
            b"failed ",
            b"600 4 0 0 0 a/b",
            b"x" * 30,
            b"\n",
            b"9" * 30,
        ]
    )
    | st.binary(max_size=8),
    max_size=16,
).map(b"".join)


@given(_ANSWERS)
def test_any_answer_is_files_or_one_sentence(answer: bytes) -> None:
    with Hostile(answer) as connection, contextlib.suppress(CommandFailed):
        read = read_files(connection, ["/a", "/b"], [None])
        assert set(read.files) == {"/a", "/b"}
    with Hostile(answer) as connection, contextlib.suppress(CommandFailed):
        look(connection)


@given(st.dictionaries(st.sampled_from(["machine", "marks", "units", "roots", "containers", "sockets"]), st.binary()))
def test_any_output_is_a_look(sections: dict[str, bytes]) -> None:
    parse_look(sections)


def test_containers_of_mastodon() -> None:
    lines = b"""\
ghcr.io/mastodon/mastodon:v4.6.3|mastodon-web-1|/srv/mastodon
ghcr.io/mastodon/mastodon-streaming:v4.6.3|mastodon-streaming-1|/srv/mastodon
tootsuite/mastodon|old|
registry.example/mastodon-backup:1|other|
postgres:14-alpine|mastodon-db-1|/srv/mastodon
"""
    assert [each.name for each in parse_look({"containers": lines}).containers] == [
        "mastodon-web-1",
        "mastodon-streaming-1",
        "old",
    ]


COMPOSE = (Container("ghcr.io/mastodon/mastodon:v4", "web", "/srv/mastodon"),)
UNITS = parse_units(SHOW)


@pytest.mark.parametrize(
    ("seen", "root", "with_units", "kind"),
    [
        (Look(), "/home/mastodon/live", True, InstallKind.NATIVE),
        (Look(), "/home/mastodon/live", False, InstallKind.NATIVE),
        (Look(containers=COMPOSE), "/home/mastodon/live", True, InstallKind.NATIVE),
        (Look(containers=COMPOSE), "/srv/mastodon", False, InstallKind.DOCKER),
        (Look(containers=COMPOSE), "", False, InstallKind.DOCKER),
        (Look(containers=(Container("lscr.io/linuxserver/mastodon", "m", ""),)), "", False, InstallKind.LINUXSERVER),
        (Look(yunohost=True), "/var/www/mastodon/live", True, InstallKind.YUNOHOST),
        (Look(yunohost=True), "/home/mastodon/live", True, InstallKind.NATIVE),
        (Look(nixos=True), "/nix/store/abc-mastodon", True, InstallKind.NIXOS),
        (Look(nixos=True), "", False, InstallKind.NIXOS),
        (Look(), "", False, InstallKind.UNKNOWN),
    ],
)
def test_kinds(seen: Look, root: str, with_units: bool, kind: InstallKind) -> None:
    assert kind_of(seen, root, UNITS if with_units else ()) is kind
