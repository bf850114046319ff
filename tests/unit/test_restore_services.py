"""What is read of systemd, of answers to HTTP and of progress bars: text of hosts, never trusted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.restore.feeds import last_count, words
from backends.restore.health import Answer, parse_answer, request
from backends.restore.plan import RedisChoice, RestoreRequest
from backends.restore.secrets_files import parse_probe
from backends.restore.secrets_target import only_settings
from backends.restore.services import PART
from backends.restore.services_units import (
    Role,
    Service,
    address,
    from_json,
    parse_states,
    role_of,
    seconds_of,
    to_json,
)
from tests.unit.test_restore_walk import REQUEST

PUMA = "{ path=/home/mastodon/.rbenv/shims/bundle ; argv[]=/home/mastodon/.rbenv/shims/bundle exec puma -C x ; }"


@pytest.mark.parametrize(
    ("name", "exec_start", "role"),
    [
        ("mastodon-web.service", PUMA, "web"),
        ("social.service", PUMA, "web"),
        ("mastodon-sidekiq-push.service", "bundle exec sidekiq -q push", "sidekiq"),
        ("mastodon-streaming@4000.service", "/usr/bin/node ./streaming", "streaming"),
        ("mastodon-streaming.service", "/bin/true", "streaming"),
        ("mastodon-prometheus-exporter.service", "bundle exec bin/prometheus_exporter", "other"),
        ("mastodon-jobs.service", "/home/web/.rbenv/shims/bundle exec sidekiq", "sidekiq"),
        ("mastodon-x.service", "/home/web/x", "other"),
    ],
)
def test_what_a_unit_is_for(name: str, exec_start: str, role: str) -> None:
    assert role_of(name, exec_start) == role


@pytest.mark.parametrize(
    ("role", "values", "shown"),
    [
        ("web", {}, "http://127.0.0.1:3000/health"),
        ("web", {"PORT": "8080", "BIND": "0.0.0.0"}, "http://127.0.0.1:8080/health"),
        ("web", {"BIND": "10.0.0.5"}, "http://10.0.0.5:3000/health"),
        ("web", {"SOCKET": "/run/mastodon/web.sock"}, "/run/mastodon/web.sock:/health"),
        ("streaming", {"PORT": "4001"}, "http://127.0.0.1:4001/api/v1/streaming/health"),
        ("streaming", {"PORT": "x; rm"}, "http://127.0.0.1:4000/api/v1/streaming/health"),
        ("sidekiq", {"PORT": "3000"}, None),
        ("web", {"BIND": "a b"}, None),
    ],
)
def test_where_a_unit_answers(role: Role, values: dict[str, str], shown: str | None) -> None:
    assert [each.shown for each in address(role, values)] == ([shown] if shown else [])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15), ("1min 30s", 90), ("infinity", 600), ("2h", 600), ("500ms", 0.5), ("", 90), ("soon", 90), ("0", 90)],
)
def test_time_spans_of_systemd(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@given(st.text())
def test_any_text_is_a_time_span(text: str) -> None:
    assert 0 < seconds_of(text) <= 600


@given(st.text(st.sampled_from("IdActiveState=\n .service loaded-web"), max_size=300) | st.text())
def test_any_answer_of_systemctl_is_read(text: str) -> None:
    for name, values in parse_states(text).items():
        assert name.endswith(".service")
        assert values["Id"] == name


def test_units_that_are_not_there_are_left_out() -> None:
    text = "Id=a.service\nLoadState=loaded\nActiveState=active\n\nId=b.service\nLoadState=not-found\n"
    assert parse_states(text) == {"a.service": {"Id": "a.service", "LoadState": "loaded", "ActiveState": "active"}}


def test_services_go_through_json() -> None:
    service = Service(
        id="mastodon-web.service",
        role="web",
        state="active",
        enabled=True,
        stop_seconds=15.0,
        steady=False,
        heard=False,
        addresses=tuple(address("web", {"PORT": "3001"})),
    )
    assert from_json(json.loads(json.dumps(to_json([service])))) == [service]


# --- health


@pytest.mark.parametrize(
    ("received", "answer", "well"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK", Answer(200, "OK"), True),
        (b'HTTP/1.1 200 OK\n\n{"status":"OK"}', Answer(200, '{"status":"OK"}'), True),
        (b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n", Answer(200, "OK"), True),
        (b"HTTP/1.1 500 no\r\n\r\nPG::Error", Answer(500, "PG::Error"), False),
        (b"HTTP/1.1 301 Moved\r\nLocation: https://x/\r\n\r\n", Answer(301, ""), False),
        (b"HTTP/1.1 200 OK\r\nContent-", Answer(200, ""), False),
        (b"SSH-2.0-OpenSSH\r\n", Answer(), False),
        (b"", Answer(), False),
    ],
)
def test_answers(received: bytes, answer: Answer, well: bool) -> None:
    assert parse_answer(received) == answer
    assert answer.well is well


@given(
    st.binary(max_size=200)
    | st.binary(max_size=100).map(lambda rest: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + rest)
)
def test_any_answer_is_read_and_shown_clean(received: bytes) -> None:
    shown = parse_answer(received).shown
    assert "\x1b" not in shown
    assert len(shown) < 200


@given(st.text())
def test_a_domain_never_becomes_another_header(domain: str) -> None:
    lines = request("/health", domain).split(b"\r\n")
    assert len(lines) == 8
    assert b"X-Forwarded-Proto: https" in lines


# --- feeds


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("17/42 |====    | ETA: 00:01\r", (17, 42)),
        ("1/42\r2/42\r3/42", (3, 42)),
        ("0/u |", None),
        ("43/42 ", None),
        ("2026/11/22", None),
        ("0/0", None),
    ],
)
def test_progress_bars(text: str, count: tuple[int, int] | None) -> None:
    assert last_count(text) == count


@given(st.text(st.sampled_from("0123456789/ |\r"), max_size=60))
def test_any_progress_makes_sense(text: str) -> None:
    count = last_count(text)
    assert count is None or 0 <= count[0] <= count[1]


def test_feeds_that_came_with_the_snapshot_are_left() -> None:
    empty = RestoreRequest(id=REQUEST.id, host="social", snapshots={}, redis=RedisChoice.EMPTY, at=REQUEST.at)
    assert words(REQUEST, "4.7.4")[-1] == "--skip-filled-timelines"
    assert words(REQUEST, "4.3.1") == words(empty, "4.7.4") == ("bin/tootctl", "feeds", "build")


# --- files on the target


def test_what_the_probe_of_the_files_says() -> None:
    mark = "mark"
    output = (
        b"a banner\n\nmark user mastodon\n\nmark group www\n"
        b"\nmark spot file 1 0 100 4096 640 root mastodon\n/real/.env\n"
        b"\nmark spot absent 0 2 - - 0 - -\n/x/y\n"
    )
    assert parse_probe(output, mark, ["/a", "/b"]) is None
    found = parse_probe(output.replace(b".env\n", b".env").replace(b"y\n", b"y") + b"\nmark end\n", mark, ["/a", "/b"])
    assert found is not None
    assert found.users == frozenset({"mastodon"})
    assert found.groups == frozenset({"www"})
    spot = found.spots["/a"]
    assert (spot.path, spot.kind, spot.writable, spot.free) == ("/real/.env", "file", True, 409600)
    assert (spot.mode, spot.owner, spot.group) == (0o640, "root", "mastodon")
    assert (found.spots["/b"].missing, found.spots["/b"].free) == (2, None)


@given(st.lists(st.sampled_from([b"\nm ", b"spot file 1 0 1 1 1 a b", b"end", b"\n", b"/x", b"user a"]), max_size=12))
def test_any_answer_of_the_probe_is_read(parts: list[bytes]) -> None:
    found = parse_probe(b"".join(parts), "m", ["/x"])
    assert found is None or list(found.spots) == ["/x"]


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("[Service]\nEnvironment=DB_POOL=25 \\\n  X=1\n# ExecStart=no\n", True),
        ("[Service]\nEnvironmentFile=/etc/default/mastodon\nLimitNOFILE=1\n", True),
        ("[Service]\nExecStartPre=/bin/sh -c id\n", False),
        ("[Service]\nUser=root\n", False),
        ("[Unit]\nWants=x\n", False),
        ("[Service]\nEnvironment=A=1\\\n", True),
    ],
)
def test_a_drop_in_that_runs_something_is_no_settings_file(text: str, fine: bool) -> None:
    assert only_settings(text.encode()) is fine


def test_without_facts_there_are_no_steps() -> None:
    assert PART.actions(REQUEST, {}) == []
