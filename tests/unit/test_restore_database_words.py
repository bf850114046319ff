"""More pure parts of a database's restore: rights, settings, the role, what programs say, what differs and is lost."""

from __future__ import annotations

import base64
import contextlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.assets.database_facts import Survey, Table
from backends.errors import AssetFailed
from backends.mastodon.installation import DatabasePlace
from backends.model import Secret
from backends.restore.database_admin import lacks
from backends.restore.database_check import differences
from backends.restore.database_load import restore_argv
from backends.restore.database_lost import accounts_lost, statuses_lost
from backends.restore.database_role import create_role_statement, scram_verifier, shown_create_role
from backends.restore.database_settings import (
    Attributes,
    parse_attributes,
    setting_value,
    split_list,
    statements,
    unlike,
)
from backends.restore.database_watch import load_failure, without_rows

# --- rights, settings, the role


def test_rights_are_put_into_words() -> None:
    able = {"user": "mastodon", "role_exists": True, "createdb": True, "member": True, "live": {"owns": True}}
    assert lacks(able, "mastodon") == ""
    assert lacks({"user": "postgres", "super": True}, "mastodon") == ""
    assert "may not create" in lacks({**able, "createdb": False}, "mastodon")
    assert "belongs to root" in lacks({**able, "live": {"owns": False, "owner": "root"}}, "mastodon")
    assert "is missing" in lacks({**able, "role_exists": False}, "mastodon")
    assert lacks({**able, "live": None}, "mastodon") == ""


@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]))))
def test_lists_of_settings_are_split_as_they_were_put_together(words: list[str]) -> None:
    stored = ", ".join('"' + word.replace('"', '""') + '"' for word in words)
    assert split_list(stored) == words


def test_settings_become_sql_again() -> None:
    assert setting_value("search_path", '"$user", public') == "'$user', 'public'"
    assert setting_value("search_path", "") == "''"
    assert setting_value("work_mem", "it's") == "'it''s'"
    wanted = Attributes(
        owner="me",
        limit=40,
        comment="ours",
        rights=frozenset({("me", "CONNECT", False), (None, "TEMPORARY", False), ("you", "CONNECT", True)}),
        settings=frozenset({(None, "statement_timeout", "5s"), ("you", "my.set", "1")}),
    )
    made = statements(wanted, "new")
    assert 'REVOKE ALL ON DATABASE "new" FROM PUBLIC, "me"' in made
    assert 'GRANT CONNECT ON DATABASE "new" TO "you" WITH GRANT OPTION' in made
    assert 'ALTER ROLE "you" IN DATABASE "new" SET "my"."set" TO \'1\'' in made
    assert 'ALTER DATABASE "new" SET "statement_timeout" TO \'5s\'' in made
    assert unlike(wanted, wanted) == []
    assert unlike(wanted, Attributes(owner="me")) == [
        "the rights",
        "the setting statement_timeout",
        "the setting my.set for you",
        "the connection limit",
        "the comment",
    ]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.dictionaries(st.text(), x)))
def test_any_answer_about_attributes_is_read_or_refused(answer: object) -> None:
    with contextlib.suppress(AssetFailed):
        assert parse_attributes(answer).owner


def test_the_roles_password_goes_as_a_verifier() -> None:
    # The example of RFC 7677: its server signature follows from the server key.
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    verifier = scram_verifier(Secret("pencil"), salt)
    assert verifier.startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
    message = (
        "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    signed = hmac.digest(base64.b64decode(verifier.rpartition(":")[2]), message.encode(), "sha256")
    assert base64.b64encode(signed).decode() == "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    statement = create_role_statement("mastodon", Secret("hunter2"))
    assert "hunter2" not in statement
    assert shown_create_role("mastodon", Secret("hunter2")) == 'CREATE ROLE "mastodon" LOGIN CREATEDB PASSWORD …'
    assert create_role_statement("mastodon", None) == 'CREATE ROLE "mastodon" LOGIN CREATEDB'


# --- what pg_restore says


def test_no_row_of_a_table_is_kept() -> None:
    assert (
        without_rows("DETAIL:  Key (token)=(s3cret) is duplicated.") == "DETAIL:  Key (token) is there more than once."
    )
    assert without_rows('CONTEXT:  COPY users, line 1: "s3cret"') == ""
    assert without_rows('pg_restore: processing data for table "public.users"').startswith("pg_restore:")
    assert "s3cret" not in without_rows("DETAIL:  Key (lower(a::text), b)=(s3cret, 1) is duplicated.")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            'pg_restore: error: could not execute query: ERROR:  could not create unique index "index_x"',
            "index index_x",
        ),
        ("pg_restore: error: COPY failed: could not extend file: No space left on device", "ran out of room"),
        ('ERROR:  role "monitor" does not exist', "role monitor"),
        ("pg_restore: error: unsupported version (1.16) in file header", "format 1.16"),
        ("pg_restore: error: could not read from input file: end of file", "dump is damaged"),
        ("FATAL:  terminating connection due to administrator command", "ended the load"),
    ],
)
def test_known_complaints_have_a_way_out(said: str, words: str) -> None:
    known = load_failure([said], "social")
    assert known is not None
    assert words in known.sentence
    assert known.next_step
    assert load_failure(["something new"], "social") is None


# --- what differs, what is lost


def survey(**facts: object) -> Survey:
    table = Table("public.statuses", "public.statuses", 100, 5, 2)
    known = {"indexes": 2, "constraints": 1, "timestamp_id": True, "invalid_indexes": []}
    return Survey({**known, **facts}, (table,), ())


FACTS = {
    "tables": {"public.statuses": {"rows": 5, "exact": True, "bytes": 100, "indexes": 2}},
    "indexes": 2,
    "constraints": 1,
    "timestamp_id": True,
}


def test_equal_is_nothing_to_say() -> None:
    assert differences(FACTS, survey(), {"public.statuses": 5}) == []


def test_every_difference_is_said() -> None:
    assert differences(FACTS, survey(), {"public.statuses": 4}) == ["statuses has 4 rows instead of 5"]
    assert differences(FACTS, survey(indexes=1), {}) == ["there are 1 indexes instead of 2"]
    assert "timestamp_id" in differences(FACTS, survey(timestamp_id=False), {})[0]
    assert "invalid" in differences(FACTS, survey(invalid_indexes=["a"]), {})[0]
    more = {**FACTS, "tables": {**FACTS["tables"], "public.users": {"rows": 1}}}  # type: ignore[dict-item]
    assert differences(more, survey(), {}) == ["the table users is missing"]


def test_what_was_outside_public_is_not_asked_for() -> None:
    other = {**FACTS, "tables": {**FACTS["tables"], "mine.x": {"rows": 1}}, "indexes": 9}  # type: ignore[dict-item]
    assert differences(other, survey(), {"public.statuses": 5}) == []
    assert differences({**FACTS, "functions": 3, "schemas": ["public", "tools"]}, survey(functions=1), {}) == []


def test_what_is_lost_in_sentences() -> None:
    newest = {"id": "1", "created_at": "2026-11-22T14:02:11Z"}
    answer = {"newer": 1204, "ours": 17, "newest": "2026-11-23T08:00:00Z"}
    assert statuses_lost(answer, newest) == [
        "1,204 posts newer than the snapshot's last one of 2026-11-22 14:02 UTC, 17 of them written here"
        " (the newest is of 2026-11-23 08:00 UTC)"
    ]
    assert statuses_lost({"newer": 0}, newest) == []
    assert "more than 100,000 posts" in statuses_lost({**answer, "newer": 100_001}, newest)[0]
    assert accounts_lost({"newer": 1, "ours": 1}, "2026-11-22T14:02:11Z") == [
        "1 account that came after 2026-11-22 14:02 UTC, 1 of them people who signed up here"
    ]


def test_the_command_is_the_one_of_the_handbook() -> None:
    place = DatabasePlace(host="/run/postgresql", port=5432, name="postgres", user="postgres")
    argv = restore_argv(place, "pg_restore", "new", "mastodon", workers=4)
    assert argv[0] == "pg_restore"
    assert {"-n", "public", "--no-owner", "--exit-on-error", "--role=mastodon", "-j4", "--dbname=new"} <= {*argv}
