"""Settings that come from another machine: what is merged, what is read of a tar that nobody vouches for."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backends.archive.manifest import Manifest
from backends.errors import AssetFailed
from backends.mastodon import env_file, systemd
from backends.mastodon.env_file import MAX_BYTES
from backends.model import Asset, Secret
from backends.restore.secrets_merge import machine_bound, merge, statement
from backends.restore.secrets_source import MAX_FILES, files_of, format_of, settings_of

NAMES = ("LOCAL_DOMAIN", "SECRET_KEY_BASE", "DB_HOST", "DB_PASS", "REDIS_URL", "SIDEKIQ_REDIS_URL", "export", "X")
LINE = st.builds(
    lambda name, sign, value, end: f"{name}{sign}{value}{end}".encode(),
    st.sampled_from(NAMES),
    st.sampled_from(["=", ": ", " = ", "=\n", "", "="]),
    st.one_of(
        st.sampled_from(["'a\nb'", '"a\\nb"', '"open', "'open", "plain # c", "$DB_HOST", "$(x)", "a\\", "'q' # c", ""]),
        st.text(st.sampled_from(" \t\"'\\#$=\n\r{}()aé\ufeff\x85"), max_size=8),
    ),
    st.sampled_from(["\n", "\r\n", "\r", "", "\n\n# DB_HOST=no\n"]),
)
FILES = st.one_of(st.lists(LINE, max_size=8).map(b"".join), st.binary(max_size=60))
VALUES = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=20).map(Secret)
OWN = st.dictionaries(st.sampled_from([name for name in NAMES if machine_bound(name)] + ["DB_NAME", "IGNORED"]), VALUES)


def others(content: bytes, form: str) -> list[tuple[str, bytes]]:
    spans = env_file.assignments if form == "dotenv" else systemd.assignments
    return [(name, content[begin:end]) for name, begin, end in spans(content) if not machine_bound(name)]


@given(FILES, OWN, st.sampled_from(["dotenv", "systemd"]))
@example(b"\xef\xbb\xbfDB_HOST=a\r\nX='b'\r\n", {"DB_HOST": Secret("c d")}, "dotenv")
@example(b"A=1\nDB_PASS='x\ny' # c\nB=2", {}, "dotenv")
@example(b"DB_HOST=\n'two lines'\nX=1\n", {"DB_HOST": Secret("'\"$")}, "dotenv")
def test_a_merge_changes_the_machines_own_settings_and_nothing_else(
    content: bytes, own: dict[str, Secret], form: str
) -> None:
    try:
        merged = merge(content, own, form=form)
    except AssetFailed:
        return
    parse: Callable[[bytes], Any] = (
        env_file.parse if form == "dotenv" else lambda each: systemd.parse_environment_file(each, name="")
    )
    after = parse(merged).values
    for name in {*after, *own}:
        if machine_bound(name):
            assert after.get(name) == own.get(name), name
    assert others(merged, form) == others(content, form)
    assert merge(merged, own, form=form) == merged
    if not any(machine_bound(name) for name in (*own, *parse(content).values)):
        assert merged == content


@given(FILES)
def test_assignments_are_those_that_the_parser_takes(content: bytes) -> None:
    names = [name for name, *_ in env_file.assignments(content)]
    assert set(env_file.parse(content).values) <= set(names)
    ends = [end for *_, end in env_file.assignments(content)]
    begins = [begin for _, begin, _ in env_file.assignments(content)]
    assert begins == sorted(begins)
    assert all(begin < end <= len(content) for begin, end in zip(begins, ends, strict=True))


@given(st.sampled_from(["DB_PASS", "REDIS_URL"]), VALUES, st.sampled_from(["dotenv", "systemd"]))
def test_a_value_is_written_so_that_it_is_read_again(name: str, value: Secret, form: str) -> None:
    try:
        line = statement(name, value, form)
    except AssetFailed as error:
        assert value.reveal() not in error.sentence or len(value.reveal()) < 3  # noqa: PT017
        return
    read = env_file.parse(line) if form == "dotenv" else systemd.parse_environment_file(line, name="")
    assert read.values == {name: value}


def test_ordinary_passwords_can_be_written() -> None:
    for text in ("hunter2", "it's", 'say "no"', "$HOME `x` \\n", "a#b c", "p@ss=w:rd", "$(rm)", "schlüssel"):
        assert env_file.parse(statement("DB_PASS", Secret(text))).values == {"DB_PASS": Secret(text)}


def test_the_database_and_redis_stay_those_of_the_machine() -> None:
    stored = b"# ours\nLOCAL_DOMAIN=social\nDATABASE_URL=postgres://old/\nREDIS_HOST=old\nREDIS_NAMESPACE=ns\nS3=1"
    own = {"DB_HOST": Secret("/run/postgresql"), "REDIS_HOST": Secret("new"), "LOCAL_DOMAIN": Secret("other")}
    assert merge(stored, own) == (
        b"# ours\nLOCAL_DOMAIN=social\nREDIS_HOST=new\nREDIS_NAMESPACE=ns\nS3=1\nDB_HOST=/run/postgresql\n"
    )


def test_a_file_that_a_merge_would_tear_is_refused() -> None:
    swallowed = b'A="open\nDB_HOST=x\nB="\n'  # all of it is the value of A
    assert merge(swallowed, {"DB_HOST": Secret("y")}) == swallowed + b"DB_HOST=y\n"
    with pytest.raises(AssetFailed, match="a quote is not closed"):
        merge(b"A='open\nDB_HOST='x'y\nB='\n", {})


# --- the tar


MANIFEST = Manifest(
    id="social/secrets/20261122T140211Z-01234567",
    host="social",
    asset=Asset.SECRETS,
    run="run",
    started_at=datetime.now(UTC),
    finished_at=datetime.now(UTC),
    tool_version="1",
    recipients=[],
    objects=[],
)


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for info, content in members:
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, content: bytes = b"A=1\n", **values: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(info, key, value)
    return info, content


def test_a_good_tar_gives_files_with_modes_and_owners() -> None:
    content = tar(member("home/mastodon/live/.env.production", b"A=1\n", mode=0o4640, uname="mastodon", gid=7))
    [file] = files_of(content, MANIFEST)
    assert (file.path, file.content) == ("/home/mastodon/live/.env.production", b"A=1\n")
    assert (file.mode, file.owner, file.group) == (0o640, "mastodon", "7")


BAD = {
    "upwards": tar(member("../etc/passwd")),
    "absolute": tar(member("/etc/passwd")),
    "unclear": tar(member("home/./x")),
    "line break": tar(member("home/x\n")),
    "symbolic link": tar(member("home/x", type=tarfile.SYMTYPE, linkname="/etc/shadow")),
    "hard link": tar(member("home/x", type=tarfile.LNKTYPE, linkname="home/y")),
    "device": tar(member("home/x", type=tarfile.CHRTYPE)),
    "directory": tar(member("home/x", type=tarfile.DIRTYPE)),
    "twice": tar(member("home/x"), member("home/x")),
    "large": tar(member("home/x", bytes(MAX_BYTES + 1))),
    "many": tar(*(member(f"home/{number}") for number in range(MAX_FILES + 1))),
    "none": tar(),
    "cut off": tar(member("home/x", bytes(5000)))[:3000],
    "rubbish": b"x" * 5000,
    "empty": b"",
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_tar_that_no_backup_writes_is_refused(content: bytes) -> None:
    with pytest.raises(AssetFailed, match="no snapshot of settings as a backup writes it"):
        files_of(content, MANIFEST)


@given(st.binary(max_size=2000), st.integers(0, 4000), st.binary(max_size=40))
def test_no_tar_does_anything_else(rubbish: bytes, at: int, scribble: bytes) -> None:
    good = tar(member("home/x", b"A=1\n", mode=0o600, pax_headers={"comment": "x"}), member("home/y"))
    for content in (rubbish, good[:at] + scribble + good[at + len(scribble) :]):
        try:
            found = files_of(content, MANIFEST)
        except AssetFailed:
            continue
        assert all(file.path.startswith("/") and ".." not in file.path.split("/") for file in found)


def test_how_a_file_is_read_comes_from_the_manifest_or_its_name() -> None:
    facts = {"files": [{"path": "/etc/default/mastodon", "format": "systemd"}, {"path": "/x", "format": "odd"}, "?"]}
    assert format_of("/etc/default/mastodon", facts) == "systemd"
    assert format_of("/live/.env.production", facts) == "dotenv"
    assert format_of("/x", {"files": {}}) == "raw"


def test_settings_count_in_the_order_mastodon_loads_them() -> None:
    files = [
        ("/live/.env.production", "dotenv", b"A=1\nB=1\nC=1\n"),
        ("/live/.env.production.local", "dotenv", b"A=2\nB=2\n"),
        ("/etc/default/mastodon", "systemd", b"A=3\n"),
        ("/etc/systemd/system/x.conf", "raw", b"C=4\n"),
    ]
    values = settings_of(files).values
    assert {name: value.reveal() for name, value in values.items()} == {"A": "3", "B": "2", "C": "1"}
