"""What a dump says and begins with, whatever a host sends."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from backends.archive.manifest import Manifest, ObjectEntry
from backends.assets.database import size_warnings
from backends.assets.database_access import explain, parameters, place_of, shown_place, telling_line
from backends.assets.database_dump import choose_form, least_bytes, shown_dump
from backends.assets.database_facts import Survey, Table, parse_tables, table_facts
from backends.assets.database_follow import Follower, LineSplitter, TableProgress
from backends.assets.database_header import HeaderWatch, check_stored_header, parse_header
from backends.assets.database_programs import MARK, Found, Programs, parse_programs
from backends.errors import AssetFailed, Damaged
from backends.mastodon.installation import DatabasePlace, Installation, InstallKind
from backends.model import Asset, Secret, utc_now
from tests.servers.backup import WatchedJob

HEADER = b"PGDMP" + struct.pack("BBBBBB", 1, 14, 0, 4, 8, 1)
PLACE = DatabasePlace(
    host="localhost", port=5432, name="mastodon_production", user="mastodon", password=Secret("s3cret")
)


def programs(**changes: Any) -> Programs:
    values: dict[str, Any] = {
        "pg_dump": "/pg/15/bin/pg_dump",
        "psql": "/pg/15/bin/psql",
        "pg_dumpall": "/pg/15/bin/pg_dumpall",
        "major": 15,
        "version": "15.18",
        "builtin_zstd": False,
    }
    return Programs(**(values | changes))


# --- the header


def test_a_custom_dump_is_recognised() -> None:
    assert parse_header(HEADER + b"rest", "the dump").version == "1.14.0"
    assert check_stored_header(io.BytesIO(HEADER), "the dump").version == "1.14.0"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "the dump is empty."),
        (b"Welcome to social!\n", "the dump is no PostgreSQL dump: it begins with “Welcome to social!”."),
        (b"PGDMP\x01", "the dump ends within its header."),
        (HEADER[:10] + b"\x03", "the dump is a PostgreSQL dump in another format than custom (-Fc)."),
    ],
)
def test_anything_else_is_named(data: bytes, sentence: str) -> None:
    with pytest.raises(Damaged) as caught:
        check_stored_header(io.BytesIO(data), "the dump")
    assert caught.value.sentence == sentence


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_beginning_in_any_pieces_gives_a_header_or_a_sentence(data: bytes, piece: int) -> None:
    for zstd in (False, True):
        watch = HeaderWatch("the dump", zstd=zstd)
        try:
            for start in range(0, len(data), piece):
                watch.feed(data[start : start + piece])
            header = watch.finish()
        except Damaged as error:
            assert error.sentence.startswith("the dump ")  # noqa: PT017
            assert "\x1b" not in error.sentence  # noqa: PT017
        else:
            assert not zstd
            assert data.startswith(b"PGDMP")
            assert header.version.count(".") == 2


@given(st.binary(max_size=3000), st.integers(1, 400))
def test_the_header_is_found_through_zstd(rest: bytes, piece: int) -> None:
    data = zstandard.ZstdCompressor().compress(HEADER + rest)
    watch = HeaderWatch("the dump", zstd=True)
    for start in range(0, len(data), piece):
        watch.feed(data[start : start + piece])
    assert watch.finish().version == "1.14.0"


def test_a_compressed_banner_is_named_too() -> None:
    with pytest.raises(Damaged, match="begins with “hello"):
        HeaderWatch("the dump", zstd=True).feed(b"hello, this is not zstd")
    watch = HeaderWatch("the dump", zstd=True)
    with pytest.raises(Damaged, match="begins with “hello"):
        watch.feed(zstandard.ZstdCompressor().compress(b"hello, this is no dump"))
    empty = HeaderWatch("the dump", zstd=True)
    empty.feed(zstandard.ZstdCompressor().compress(b""))
    with pytest.raises(Damaged, match="is empty"):
        empty.finish()


def test_a_stream_made_to_unpack_for_ever_stays_small() -> None:
    # a frame of run-length blocks: four bytes for 128 KiB each, and no header of a dump in them
    block = (131072 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    bomb = b"\x28\xb5\x2f\xfd\x00\x38" + block * 50_000
    with pytest.raises(Damaged):
        HeaderWatch("the dump", zstd=True).feed(bomb)


# --- programs


LOOK = f"""Welcome!
{MARK}\tzstd
{MARK}\tpg_dump\tpsql\tpg_dumpall\tno\tpg_dump (PostgreSQL) 13.21 (Debian 13.21-0+deb11u1)
{MARK}\t/usr/lib/postgresql/15/bin/pg_dump\t/usr/lib/postgresql/15/bin/psql\tx\tno\tpg_dump (PostgreSQL) 15.18
{MARK}\t/usr/lib/postgresql/17/bin/pg_dump\t/usr/lib/postgresql/17/bin/psql\tx\tyes\tpg_dump (PostgreSQL) 17beta2
"""


def test_the_servers_own_version_is_taken() -> None:
    found = parse_programs(LOOK, "social")
    assert found.zstd
    assert found.psql == "psql"
    assert found.for_server(150018).version == "15.18"
    assert found.for_server(130021).pg_dump == "pg_dump"
    assert found.for_server(160004).version == "17beta2"
    with pytest.raises(AssetFailed) as caught:
        found.for_server(180001)
    assert caught.value.sentence == "pg_dump 17beta2 on social is older than its server, PostgreSQL 18."
    assert "postgresql-client-18" in caught.value.next_step


@given(st.text(max_size=300))
def test_any_answer_about_programs_is_read(text: str) -> None:
    for sample in (text, text.replace(" ", f"\n{MARK}\t"), f"{MARK}\t{text}\t\t\tyes\t(PostgreSQL) 15{text}"):
        assert parse_programs(sample, "social").host == "social"


def test_the_form_follows_what_the_host_can() -> None:
    has = Found(host="social", sets=(), zstd=True)
    lacks = Found(host="social", sets=(), zstd=False)
    builtin = choose_form(has, programs(builtin_zstd=True))
    assert (builtin.how, builtin.name, builtin.compress_here, builtin.already) == (
        "pg_dump",
        "database.pgdump",
        False,
        (),
    )
    host = choose_form(has, programs())
    assert (host.name, host.compress_here, host.already) == ("database.pgdump.zst", False, ("zstd",))
    assert shown_dump(PLACE, programs(), host).endswith("| zstd -3 -T0")
    here = choose_form(lacks, programs())
    assert (here.name, here.compress_here, here.already) == ("database.pgdump", True, ())


# --- refusals


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            'psql: error: connection to server at "localhost" (::1), port 5432 failed: FATAL:  password authentication'
            ' failed for user "mastodon"',
            "PostgreSQL on social refused the password of mastodon.",
        ),
        ("psql: error: fe_sendauth: no password supplied", "PostgreSQL on social wants a password of mastodon"),
        ('FATAL:  Peer authentication failed for user "mastodon"', "lets only the system user mastodon in"),
        ("FATAL:  sorry, too many clients already", "PostgreSQL on social has no connection left."),
        ("FATAL:  the database system is starting up", "PostgreSQL on social is starting or stopping."),
        ("could not connect: Connection refused", "PostgreSQL on social does not answer (mastodon_production at"),
        ("ERROR:  canceling statement due to lock timeout", "stayed locked for ten minutes"),
        ("FATAL:  unsupported startup parameter: options", "reached through PgBouncer"),
        ("pg_dump: error: query failed: ERROR:  permission denied for table users", "may not read all of"),
        ("pg_dump: error: something \x1b[31mnew", "PostgreSQL failed on social: something �[31mnew"),
        ("", "PostgreSQL failed on social: it said nothing"),
    ],
)
def test_refusals_become_one_sentence(said: str, sentence: str) -> None:
    error = explain(said, "social", PLACE)
    assert sentence in error.sentence
    assert error.next_step


@given(st.text(max_size=400))
def test_anything_said_becomes_one_safe_line(said: str) -> None:
    sentence = explain(said, "social", PLACE).sentence
    assert "\n" not in sentence
    assert "\x1b" not in sentence
    assert telling_line(said)


def test_the_first_error_is_the_reason() -> None:
    said = "pg_dump: warning: x\npg_dump: error: the cause\npg_dump: detail: y\npg_dump: error: a consequence\n"
    assert telling_line(said) == "the cause"


def test_connection_options_hold_no_password() -> None:
    assert "s3cret" not in " ".join(parameters(PLACE))
    odd = DatabasePlace(host="", port=5433, name="a='b", user="-x")
    assert parameters(odd) == ("--port=5433", "--username=-x", "--dbname=dbname='a=\\'b'", "--no-password")
    assert shown_place(DatabasePlace(host="/run/postgresql", port=5432, name="m", user="m")) == (
        "m at /run/postgresql/.s.PGSQL.5432"
    )


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (None, "Where PostgreSQL is was not found on social."),
        (DatabasePlace(host="localhost", port=6432, name="m", user="m"), "through PgBouncer"),
        (DatabasePlace(host="localhost", port=5432, name="m\n", user="m"), "hold a line break or a NUL"),
        (DatabasePlace(host="localhost", port=5432, name="m", user="m", password=Secret("a\nb")), "hold a line break"),
    ],
)
def test_places_that_cannot_be_used_are_refused(place: DatabasePlace | None, words: str) -> None:
    installation = Installation(host="social", kind=InstallKind.NATIVE, root="/l", user="m", database=place)
    with pytest.raises(AssetFailed) as caught:
        place_of(installation)
    assert words in caught.value.sentence
    assert "a\nb" not in caught.value.sentence


# --- what it says while it works


@given(st.lists(st.binary(max_size=80), max_size=30))
def test_lines_are_whole_in_whatever_pieces_they_come(pieces: list[bytes]) -> None:
    lines: list[str] = []
    splitter = LineSplitter(lines.append)
    for piece in pieces:
        splitter.feed(piece)
    splitter.finish()
    whole = b"".join(pieces).split(b"\n")
    wanted = [line.decode("utf-8", "replace").rstrip("\r") for line in whole[:-1]]
    last = whole[-1].decode("utf-8", "replace")
    assert lines == [*wanted, *([last] if last else [])]


SIZES = {"public.a": 1000, "public.b": 50_000_000, "public.c": 0}


@given(st.lists(st.one_of(st.sampled_from([*SIZES, "public.new"]), st.integers(0, 10**8)), max_size=40))
def test_progress_never_goes_back_nor_beyond_the_end(events: list[str | int]) -> None:
    steps: list[int] = []
    progress = TableProgress(SIZES, steps.append, guess=4.0)
    for event in events:
        if isinstance(event, str):
            progress.begin_table(event)
        else:
            progress.arrived(event)
    progress.end()
    assert all(step > 0 for step in steps)
    if len(set(events) & set(SIZES)) == len([event for event in events if event in SIZES]):
        assert sum(steps) == sum(SIZES.values())


def test_progress_moves_within_a_table_and_stops_short_of_its_end() -> None:
    steps: list[int] = []
    progress = TableProgress({"public.b": 1000}, steps.append, guess=2.0)
    progress.begin_table("public.b")
    progress.arrived(100)
    assert sum(steps) == 200
    progress.arrived(10_000)
    assert sum(steps) == 980
    progress.end()
    assert sum(steps) == 1000


@given(st.lists(st.text(max_size=60), max_size=20))
def test_a_follower_takes_any_text(lines: list[str]) -> None:
    follower = Follower(WatchedJob(), TableProgress({}, lambda amount: None, guess=1.0), "stages-x")
    follower.feed("\n".join(lines).encode("utf-8", "replace"))
    follower.feed(b"\nstages-x pg_dump 0 zstd 0\n")
    follower.finish()
    assert follower.statuses == {"pg_dump": 0, "zstd": 0}


def test_a_flood_of_lines_fills_no_log() -> None:
    job = WatchedJob()
    follower = Follower(job, TableProgress({}, lambda amount: None, guess=1.0), "stages-x")
    follower.feed(b"pg_dump: warning: again\n" * 50_000 + b"x" * 100_000)
    follower.finish()
    assert len(job.lines) < 3000
    assert len(follower.said) <= 20
    assert max(map(len, job.lines)) <= 4000


# --- facts and sizes


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["quoted", "bytes", "estimate", "indexes", "t"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(json_values)
def test_any_catalogue_gives_tables_or_a_sentence(answer: Any) -> None:
    try:
        tables = parse_tables(answer)
    except AssetFailed as error:
        assert error.sentence  # noqa: PT017
    else:
        assert all(table.bytes >= 0 for table in tables)


def survey_of(*sizes: int) -> Survey:
    tables = tuple(Table(f"public.t{n}", f"public.t{n}", size, 7, 1) for n, size in enumerate(sizes))
    return Survey(facts={}, tables=tables, warnings=())


def test_counts_and_estimates_are_told_apart() -> None:
    facts = table_facts(survey_of(10, 20).tables, {"public.t0": 3})
    assert facts["public.t0"] == {"rows": 3, "exact": True, "bytes": 10, "indexes": 1}
    assert facts["public.t1"]["rows"] == 7
    assert facts["public.t1"]["exact"] is False


def test_200_bytes_are_no_dump_of_a_hundred_tables() -> None:
    known = survey_of(*[8192] * 100)
    form = choose_form(Found(host="social", sets=(), zstd=True), programs())
    assert least_bytes(known, form) > 1000


def entry(size: int) -> ObjectEntry:
    return ObjectEntry(name="database.pgdump.zst.age", bytes=size, sha256="", codecs=["zstd", "age"], plain_bytes=size)


def manifest(size: int) -> Manifest:
    now = utc_now()
    return Manifest(
        id="social/database/20261122T140211Z-0001",
        host="social",
        asset=Asset.DATABASE,
        run="r",
        started_at=now,
        finished_at=now,
        tool_version="1",
        recipients=[],
        objects=[entry(size)],
    )


def test_a_dump_that_shrank_is_remarked() -> None:
    mib = 1024 * 1024
    assert not size_warnings(entry(6 * mib), survey_of(20 * mib), manifest(10 * mib))
    assert not size_warnings(entry(1), survey_of(20 * mib), None)
    assert not size_warnings(entry(100), survey_of(20), manifest(1000))
    assert size_warnings(entry(4 * mib), survey_of(20 * mib), manifest(10 * mib)) == [
        f"the dump shrank from {10 * mib} to {4 * mib} bytes since social/database/20261122T140211Z-0001"
    ]
    assert "for tables of" in size_warnings(entry(1000), survey_of(200 * mib), None)[0]
