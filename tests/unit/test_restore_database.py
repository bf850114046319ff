"""The pure parts of a database's restore: names, SQL, programs, collation, room, code."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.assets.database_programs import Found, Programs
from backends.errors import AssetFailed
from backends.mastodon.installation import DatabasePlace
from backends.restore.database_code import judge_code, parse_migrations
from backends.restore.database_load import create_statement
from backends.restore.database_locale import Locale, choose_locale, locale_of
from backends.restore.database_names import (
    MAX_BYTES,
    before_name,
    beside,
    identifier,
    literal,
    made_by_restores,
    restored_name,
)
from backends.restore.database_room import Room, Rooms, choose_staging, data_directory, parse_rooms, staged_need
from backends.restore.database_tools import Toolbox, Tools, dump_major, parse_toolbox, server_major

ID = "20261122t140211"
NAMES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1).filter(
    lambda name: len(name.encode()) <= MAX_BYTES
)


# --- names and quoting


@given(NAMES)
def test_names_fit_and_are_found_again(live: str) -> None:
    restored, before = restored_name(live, ID), before_name(live, ID)
    assert len({live, restored, before}) == 3
    assert all(len(name.encode()) <= MAX_BYTES for name in (restored, before))
    found = made_by_restores([live, restored, before, "other"], live)
    assert found == {restored: ("restore", ID), before: ("before", ID)}


def test_names_say_what_they_are() -> None:
    assert restored_name("mastodon_production", ID) == f"mastodon_production_restore_{ID}"
    place = DatabasePlace(host="localhost", port=5432, name="x", user="mastodon")
    assert beside(place, ID).name == before_name("x", ID).replace("before", "restore")
    long = "a" * 63
    assert restored_name(long, ID) != restored_name("a" * 62 + "b", ID)


def test_other_databases_are_not_taken_for_ours() -> None:
    assert not made_by_restores(["prod_restore_old", f"other_restore_{ID}", "prod_before_2026"], "prod")


@given(NAMES)
def test_identifiers_and_literals_hold_anything(name: str) -> None:
    quoted = identifier(name)
    assert quoted[1:-1].replace('""', "").count('"') == 0
    text = literal(name)
    assert re.fullmatch(r"(?s)'(?:[^'\\]|'')*'| E'(?:[^'\\]|''|\\\\)*'", text)


def test_a_name_that_cannot_be_is_refused() -> None:
    for name in ("", "a\0b"):
        with pytest.raises(AssetFailed):
            identifier(name)


# --- programs

FOUND = Found("social", (Programs("pg_dump", "psql", "pg_dumpall", 15, "15.1", False),), True)


def box(*majors: int) -> Toolbox:
    sets = tuple(Tools(f"/{major}/pg_restore", "", "psql", major, f"{major}.1") for major in majors)
    return Toolbox("social", sets, "psql", True, 4)


@pytest.mark.parametrize(
    ("majors", "dump", "server", "chosen"),
    [
        ((15,), 15, 15, 15),
        ((15, 16, 17), 15, 16, 16),
        ((16, 18), 15, 15, 16),
        ((15, 18), 14, 18, 18),
        ((18,), 18, 17, 18),
    ],
)
def test_the_best_fitting_programs_are_chosen(majors: tuple[int, ...], dump: int, server: int, chosen: int) -> None:
    assert box(*majors).fitting(dump, server).major == chosen


@pytest.mark.parametrize(
    ("majors", "dump", "server", "sentence"),
    [
        ((), 15, 15, "not found"),
        ((14,), 15, 15, "older than the pg_dump 15"),
        ((18,), 15, 15, "does not work with its server, PostgreSQL 15"),
        ((17,), 17, 15, "made by pg_dump 17"),
    ],
)
def test_programs_that_do_not_fit_are_refused(majors: tuple[int, ...], dump: int, server: int, sentence: str) -> None:
    with pytest.raises(AssetFailed, match=sentence) as caught:
        box(*majors).fitting(dump, server)
    assert caught.value.next_step


def test_the_look_around_is_read() -> None:
    text = (
        "Welcome!\nmastovault-tool\tcores\t4\nmastovault-tool\tmemory\t1024\n"
        "mastovault-tool\tset\t/usr/lib/postgresql/15/bin/\t/usr/lib/postgresql/15/bin/vacuumdb\t"
        "pg_restore (PostgreSQL) 15.18 (Debian 15.18-0)\nmastovault-tool\tset\t\t\tpg_restore (PostgreSQL) 17beta1\n"
    )
    found = parse_toolbox(text, FOUND)
    assert [(tools.pg_restore, tools.major) for tools in found.sets] == [
        ("/usr/lib/postgresql/15/bin/pg_restore", 15),
        ("pg_restore", 17),
    ]
    assert (found.cores, found.memory, found.zstd) == (4, 1024 * 1024, True)


@given(st.text())
def test_any_look_around_is_read(text: str) -> None:
    found = parse_toolbox(text + "\nmastovault-tool\t" + text, FOUND)
    assert found.cores >= 1


def test_versions_of_a_dump() -> None:
    assert dump_major({"dump_version": "15.18", "server_version_num": 140001}) == 15
    assert dump_major({"server_version_num": 140001}) == 14
    assert (dump_major({}), server_major({"server_version_num": "15"})) == (0, 0)


# --- collation

ANSWER = {
    "known": ["C", "en_US.utf8", "C.UTF-8"],
    "template": {"encoding": "UTF8", "collate": "C.UTF-8", "ctype": "C.UTF-8"},
    "icu": True,
}


def test_the_dumps_own_collation_where_it_is_known() -> None:
    dump = Locale(encoding="UTF8", collate="en_US.UTF-8", ctype="en_US.UTF-8")
    chosen = choose_locale(dump, None, ANSWER, 150000)
    assert (chosen.locale, chosen.note) == (dump, "")


def test_the_nearest_collation_else() -> None:
    dump = Locale(encoding="UTF8", collate="de_DE.UTF-8", ctype="de_DE.UTF-8")
    chosen = choose_locale(dump, None, ANSWER, 150000)
    assert chosen.locale.collate == "C.UTF-8"
    assert "de_DE.UTF-8" in chosen.note
    assert "locale-gen de_DE.UTF-8" in chosen.way_out
    live = Locale(encoding="UTF8", collate="en_US.UTF-8", ctype="en_US.UTF-8")
    assert choose_locale(dump, live, ANSWER, 150000).locale == live
    assert choose_locale(dump, None, {}, 150000).locale.collate == "C"
    latin = {"known": ["de_DE"], "template": {"encoding": "LATIN1", "collate": "de_DE", "ctype": "de_DE"}}
    assert choose_locale(dump, None, latin, 150000).locale.collate == "C"


def test_other_providers_of_collations() -> None:
    icu = Locale(encoding="UTF8", collate="C.UTF-8", ctype="C.UTF-8", provider="icu", name="en-US")
    assert choose_locale(icu, None, ANSWER, 150000).locale == icu
    assert choose_locale(icu, None, {**ANSWER, "icu": False}, 150000).locale.provider == "libc"
    assert "ICU_LOCALE 'en-US'" in create_statement("a", "b", icu, 150000)
    assert "LOCALE_PROVIDER" not in create_statement("a", "b", ANSWER_LIBC, 140000)
    builtin = Locale(encoding="UTF8", collate="C", ctype="C", provider="builtin", name="C.UTF-8")
    assert choose_locale(builtin, None, ANSWER, 160000).locale.provider == "libc"
    assert choose_locale(builtin, None, ANSWER, 170000).locale == builtin


ANSWER_LIBC = Locale(encoding="UTF8", collate="C", ctype="C")


def test_the_tablespace_of_the_live_database_is_kept() -> None:
    assert create_statement('o"dd', "me", ANSWER_LIBC, 140000, tablespace="fast").endswith(' TABLESPACE "fast"')
    assert create_statement('o"dd', "me", ANSWER_LIBC, 140000).startswith('CREATE DATABASE "o""dd" OWNER "me"')


@given(
    st.dictionaries(
        st.sampled_from(["encoding", "collate", "ctype", "locale", "locale_provider"]), st.text() | st.none()
    )
)
def test_any_manifest_gives_a_locale_or_none(facts: dict[str, object]) -> None:
    dump = locale_of(facts)
    assert choose_locale(dump, None, ANSWER, 150000).locale.options(150000)


# --- room


def df(free: int, mount: str = "/") -> str:
    return f"/dev/vda 100000 5000 {free} 40% {mount}"


def test_rooms_are_read() -> None:
    text = (
        "hello\nmastovault-room\tserver\tpostgres -D /data\n"
        f"mastovault-room\troom\tdata\t/var/lib/postgresql/15/main\tno\text2/ext3\t{df(1000)}\n"
        f"mastovault-room\troom\tstaging\t/home/mastodon\tyes\txfs\t{df(2000, '/home')}\n"
        f"mastovault-room\troom\tstaging\t/var/tmp\tyes\ttmpfs\t{df(9000, '/var/tmp')}\n"
    )
    rooms = parse_rooms(text)
    assert rooms.data == Room("/var/lib/postgresql/15/main", 1000 * 1024, "/", False, False)
    assert [(room.path, room.free, room.in_memory) for room in rooms.staging] == [
        ("/home/mastodon", 2000 * 1024, False),
        ("/var/tmp", 9000 * 1024, True),
    ]


@given(st.text())
def test_any_rooms_are_read(text: str) -> None:
    rooms = parse_rooms(f"{text}\nmastovault-room\troom\tdata\t/{text}\tyes\t{text}\t{text}")
    assert rooms.data is None or rooms.data.free >= 0


def test_staging_shares_its_room_with_the_database() -> None:
    data = Room("/data", 100, "/", False, False)
    home = Room("/home", 100, "/", True, False)
    other = Room("/srv", 50, "/srv", True, False)
    assert choose_staging(Rooms(data, (home, other)), staged=40, database=80) == other
    assert choose_staging(Rooms(data, (home, other)), staged=40, database=50) == home
    assert choose_staging(Rooms(None, (home, other)), staged=40, database=80) is None
    assert choose_staging(Rooms(data, (Room("/srv", 500, "/srv", False, False),)), staged=4, database=8) is None
    assert choose_staging(Rooms(data, (Room("/tmp", 500, "/tmp", True, True),)), staged=4, database=8) is None


def test_the_size_of_a_staged_dump() -> None:
    facts = {"tables": {"public.a": {"bytes": 1000_000_000}, "public.b": {"bytes": "x"}}}
    assert staged_need(facts, 500, packed=False) == 500
    assert staged_need(facts, 500, packed=True) > 1_200_000_000


def test_where_a_server_keeps_its_data() -> None:
    mark = "mastovault-room\tserver\t"
    debian = f"{mark}/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main -c config_file=/etc/x"
    other = f"{mark}/opt/bin/postgres -D/srv/pg -p 5433"
    assert data_directory([debian], 5432) == "/var/lib/postgresql/15/main"
    assert data_directory([debian, other], 5433) == "/srv/pg"
    assert data_directory([debian, other], 5432) == "/var/lib/postgresql/15/main"
    assert data_directory([debian, debian.replace("15", "13")], 5432) == ""
    assert data_directory([f"{mark}vi postgres -D /etc/passwd"], 5432) == ""


@given(st.lists(st.text()), st.integers())
def test_any_processes_are_read(lines: list[str], port: int) -> None:
    assert isinstance(data_directory([*lines, *(f"mastovault-room\tserver\t{line}" for line in lines)], port), str)


# --- code


def test_migrations_are_compared() -> None:
    listed = "\n".join(
        f"mastovault-migration {name}" for name in ("20200101000000_a.rb", "20260702144128_b.rb", "*.rb")
    )
    assert parse_migrations(f"banner\n{listed}") == "20260702144128"
    assert parse_migrations("") == ""
    facts = {"migrations": {"head": "20260702144128"}, "mastodon_version": "4.7.4"}
    ((older,), migrate) = judge_code(facts, "20250101000000", "4.5.0")
    assert (older.level, older.way_out, migrate) == ("block", "Check out v4.7.4 there first.", False)
    ((newer,), migrate) = judge_code(facts, "20270101000000", "4.8.0")
    assert (newer.level, migrate) == ("note", True)
    assert "rails db:migrate runs before the start" in newer.text
    ((same,), migrate) = judge_code(facts, "20260702144128", "4.7.4")
    assert (same.level, migrate) == ("ok", False)


@pytest.mark.parametrize(
    ("version", "level", "migrates"),
    [("4.6.9", "block", False), ("4.7.4", "ok", False), ("4.8.0", "note", True), ("", "note", False)],
)
def test_without_migrations_the_versions_are_compared(version: str, level: str, migrates: bool) -> None:
    ((found,), migrate) = judge_code({"mastodon_version": "4.7.4", "migrations": {"head": "x"}}, "", version)
    assert (found.level, migrate) == (level, migrates)


@given(st.text())
def test_any_listing_of_migrations_is_read(text: str) -> None:
    assert re.fullmatch(r"(?:[0-9]{14})?", parse_migrations(text))
