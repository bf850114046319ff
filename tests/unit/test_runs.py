"""The parts of runs: folders, events, jobs, following, whatever is in the files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from os.path import commonpath
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.config.paths import Paths
from backends.errors import Cancelled, Locked, MastovaultError
from backends.model import Asset, JobResult, JobSnapshot, JobState, Secret, utc_now
from backends.operations.locks import hold
from backends.runs import events as forms
from backends.runs.events import EVENTS, EventWriter
from backends.runs.folder import (
    Request,
    folder_of,
    has_own_directory,
    is_alive,
    new_folder,
    process_start,
    read_request,
    runs_dir,
    write_request,
)
from backends.runs.job import Publisher, RunJob
from backends.runs.launch import KEEP_RUNS, _forget_old
from backends.runs.slots import allowed, turn
from backends.runs.tail import Tail
from backends.runs.watch import RunsWatcher
from tui.cli.follow import exit_code

RUN = "20261122T140211Z-0000000a"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KINDS = st.sampled_from(["progress", "log", "question", "answered", "result", "summary", "begun", "other"])
FIELDS = st.sampled_from(
    ["job", "host", "asset", "step", "done", "total", "rate", "unit", "state", "lines", "id", "prompt", "results", "at"]
)
EVENT = st.builds(lambda kind, rest: {**rest, "event": kind}, KINDS, st.dictionaries(FIELDS, JSON, max_size=8))
LINE = (
    EVENT.map(lambda event: json.dumps(event).encode())
    | EVENT.map(lambda event: json.dumps(event, separators=(",", ":")).encode())
    | st.binary(max_size=60)
    | st.just(b"[" * 5000)
)


def made(state: Path, *assets: Asset) -> tuple[Path, Request]:
    return new_folder(state, kind="backup", host="social", assets=assets or tuple(Asset), options={})


def progress(asset: Asset, done: int, state: JobState = JobState.RUNNING) -> dict[str, Any]:
    return forms.progress_event(JobSnapshot(id=asset.value, host="social", asset=asset, state=state, done=done))


def result(asset: Asset, state: JobState = JobState.DONE, **more: Any) -> JobResult:
    return JobResult(host="social", asset=asset, state=state, **more)


# Events and who follows them


@settings(max_examples=50, deadline=None)
@given(lines=st.lists(LINE, max_size=12), cuts=st.lists(st.integers(0, 2000), max_size=4))
def test_whatever_is_in_the_events_a_run_can_be_looked_at(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], cuts: list[int]
) -> None:
    state = tmp_path_factory.mktemp("state")
    folder, request = made(state)
    write_request(folder, Request(**{**_fields(request), "pid": os.getpid(), "started": process_start(os.getpid())}))
    watcher = RunsWatcher(state)
    data = b"".join(line + b"\n" for line in lines)
    before = 0
    with (folder / EVENTS).open("ab", buffering=0) as file:
        for cut in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
            file.write(data[before:cut])
            before = cut
            watcher.poll()
            watcher.log(request.id)
        ended = bool(watcher.poll()[0].ended_at)
        good = {"event": "summary", "at": "2026-11-22T14:02:11Z", "results": [forms.result_json(result(Asset.REDIS))]}
        file.write(b"\n" + json.dumps(good).encode() + b"\n")
    (view,) = watcher.poll()
    assert view.ended_at
    assert ended or Asset.REDIS in {each.asset for each in view.results}
    assert Asset.REDIS in {each.asset for each in RunsWatcher(state).poll()[0].results}
    shutil.rmtree(state)


def _fields(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in Request.__slots__}


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=20),
    cuts=st.lists(st.integers(0, 700), max_size=6),
)
def test_a_tail_gives_each_whole_line_once(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("tail") / "file"
    tail, data, got, before = Tail(path), b"".join(line + b"\n" for line in lines), [], 0
    assert list(tail.read()) == []
    with path.open("ab", buffering=0) as file:
        for cut in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
            file.write(data[before:cut])
            before = cut
            got += [line for batch in tail.read() for line in batch]
    assert got == lines


def test_a_line_without_end_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.runs.tail._MAX_LINE", 1000)
    monkeypatch.setattr("backends.runs.tail._CHUNK", 300)
    path = tmp_path / "file"
    path.write_bytes(b"one\n" + b"x" * 5000 + b"\ntwo\n")
    assert [line for batch in Tail(path).read() for line in batch] == [b"one", b"two"]


def test_the_last_progress_counts_and_logs_are_read_on_demand(tmp_path: Path) -> None:
    folder, request = made(tmp_path)
    writer = EventWriter(folder)
    for done in range(500):
        writer.write(progress(Asset.MEDIA, done))
        writer.write(progress(Asset.REDIS, 2 * done))
        for event in forms.log_events([(utc_now(), "media", f"line {done}")]):
            writer.write(event)
    watcher = RunsWatcher(tmp_path)
    (view,) = watcher.poll()
    assert {job.id: job.done for job in view.jobs} == {"media": 499, "redis": 998}
    lines, since = watcher.log(request.id, "media")
    assert [line.text for line in lines] == [f"line {number}" for number in range(500)]
    assert watcher.log(request.id, "redis", since) == ([], since)
    assert watcher.log("../../etc/passwd") == ([], 0)
    assert watcher.log("20261122T140211Z-00000000")[0] == []


def test_logs_stay_bounded_and_keep_their_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.runs.watch._MAX_LINES", 100)
    monkeypatch.setattr("backends.runs.watch._OPEN_LOGS", 1)
    runs = []
    for _ in range(2):
        folder, request = made(tmp_path)
        runs.append(request.id)
        for event in forms.log_events([(utc_now(), "media", f"line {number}") for number in range(1200)]):
            EventWriter(folder).write(event)
    watcher = RunsWatcher(tmp_path)
    for _ in range(2):
        for run in runs:
            lines, since = watcher.log(run)
            assert since == 1200
            assert [line.text for line in lines] == [f"line {number}" for number in range(1100, 1200)]
            assert watcher.log(run, None, 1198)[0] == lines[-2:]


def test_what_a_killed_writer_left_spoils_no_later_event(tmp_path: Path) -> None:
    folder, _ = made(tmp_path)
    (folder / EVENTS).write_bytes(json.dumps(progress(Asset.REDIS, 5)).encode() + b'\n{"event":"progr')
    writer = EventWriter(folder)
    writer.write(forms.summary_event([result(Asset.REDIS)]))
    writer.close()
    (view,) = RunsWatcher(tmp_path).poll()
    assert view.ended_at
    assert view.jobs[0].done == 5


def test_a_full_disk_loses_an_event_never_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = made(tmp_path)
    writer = EventWriter(folder)
    real = os.write

    def half(handle: int, data: bytes) -> int:
        return real(handle, data[: len(data) // 2])

    def none(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    for broken in (half, none, half):
        monkeypatch.setattr(os, "write", broken)
        writer.write(progress(Asset.REDIS, 1))
    monkeypatch.setattr(os, "write", real)
    writer.write(progress(Asset.REDIS, 7))
    assert RunsWatcher(tmp_path).poll()[0].jobs[0].done == 7


def test_text_from_outside_is_cleaned_on_the_way_in_and_out(tmp_path: Path) -> None:
    folder, request = made(tmp_path)
    writer = EventWriter(folder)
    job = RunJob("social", Asset.REDIS, writer, lambda *_: None)
    job.step("\x1b]0;title\x07")
    job.log("\x1b[2Jone\ntwo\u202e")
    job.warn("three\x00")
    job.flush_log()
    job.publish(now=True)
    assert b"\\u001b" not in (folder / EVENTS).read_bytes()
    writer.write({"event": "question", "id": "1", "job": "redis", "prompt": "\x1b[31mPassword"})
    watcher = RunsWatcher(tmp_path)
    (view,) = watcher.poll()
    shown = [view.jobs[0].step, *(line.text for line in watcher.log(request.id)[0])]
    assert len(shown) == 4
    assert not any(character in text for text in shown for character in "\x1b\x00\x07\u202e")


# Jobs


def test_progress_comes_four_times_a_second_at_most_and_the_last_always(tmp_path: Path) -> None:
    job = RunJob("social", Asset.MEDIA, EventWriter(tmp_path), lambda *_: None)
    publisher = Publisher([job])
    publisher.start()
    began = time.monotonic()
    count = 0
    while time.monotonic() - began < 1.0:
        job.step(f"step {count % 7}", total=10)
        job.advance(1)
        job.log(f"line {count}")
        count += 1
        time.sleep(0.001)
    job.advance(4)
    job.finish(result(Asset.MEDIA))
    publisher.stop()
    seconds = time.monotonic() - began
    lines = [json.loads(line) for line in (tmp_path / EVENTS).read_text().splitlines()]
    shown = [line for line in lines if line["event"] == "progress"]
    assert len(shown) <= seconds * 4 + 2
    assert (shown[-1]["state"], shown[-1]["done"]) == ("done", 5)
    batches = [line for line in lines if line["event"] == "log"]
    assert len(batches) <= seconds * 10 + 2
    assert sum(len(batch["lines"]) for batch in batches) == count


def test_cancel_calls_back_once_also_those_who_come_late(tmp_path: Path) -> None:
    job = RunJob("social", Asset.MEDIA, EventWriter(tmp_path), lambda *_: None)
    job.step("copying")
    called: list[str] = []
    heard = threading.Event()

    def first() -> None:
        called.append("first")
        heard.set()

    def twice() -> None:
        called.append("taken back")

    job.on_cancel(first)
    forget, keep = job.on_cancel(twice), job.on_cancel(twice)
    forget()
    keep()
    job.check_cancelled()
    job.cancel()
    job.cancel()
    assert heard.wait(5)
    job.on_cancel(lambda: called.append("late"))
    assert sorted(called) == ["first", "late"]
    assert job.snapshot().state is JobState.CANCELLING
    with pytest.raises(Cancelled):
        job.check_cancelled()


def test_a_job_that_has_not_begun_is_cancelled_at_once(tmp_path: Path) -> None:
    job = RunJob("social", Asset.MEDIA, EventWriter(tmp_path), lambda *_: None)
    job.cancel()
    assert job.snapshot().state is JobState.CANCELLED
    job.step("connecting")
    assert job.snapshot().state is JobState.CANCELLING


def test_a_question_ends_with_its_job(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def ask(job: str, prompt: str, cancelled: Any) -> Secret | None:
        asked.append((job, prompt))
        return None if cancelled() else Secret("x")

    job = RunJob("social", Asset.MEDIA, EventWriter(tmp_path), ask)
    assert job.ask("Password") == Secret("x")
    job.cancel()
    assert job.ask("Password") is None
    assert asked == [("media", "Password")] * 2


def test_the_rate_is_of_the_last_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    job = RunJob("social", Asset.MEDIA, EventWriter(tmp_path), lambda *_: None)
    job.step("copying")
    assert job.snapshot().rate is None
    for _ in range(40):
        clock[0] += 0.25
        job.advance(250)
        job.snapshot()
    assert job.snapshot().rate == pytest.approx(1000, rel=0.1)
    for _ in range(40):
        clock[0] += 0.25
        job.snapshot()
    assert job.snapshot().rate == 0


# Folders and processes


def test_a_request_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder, request = made(tmp_path, Asset.REDIS)
    assert read_request(folder) == request
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder_of(tmp_path, request.id[-4:]) == folder
    for wrong in ("", "x", "../..", "\x1b"):
        with pytest.raises(MastovaultError):
            folder_of(tmp_path, wrong)
    other, _ = made(tmp_path)
    with pytest.raises(MastovaultError):
        folder_of(tmp_path, commonpath([folder.name[::-1], other.name[::-1]])[::-1])


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_in_run_json(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    state = tmp_path_factory.mktemp("state")
    folder = runs_dir(state) / RUN
    folder.mkdir(parents=True)
    (folder / "run.json").write_bytes(content)
    assert read_request(folder) is None
    assert RunsWatcher(state).poll() == ()


def test_a_pid_that_was_given_to_another_process_is_not_the_run(tmp_path: Path) -> None:
    _, request = made(tmp_path)
    mine = Request(**{**_fields(request), "pid": os.getpid(), "started": process_start(os.getpid())})
    now = utc_now()
    assert is_alive(mine, now)
    assert not is_alive(Request(**{**_fields(mine), "started": mine.started - 1}), now)
    assert not is_alive(Request(**{**_fields(mine), "pid": 1 << 22, "started": 0}), now)
    assert is_alive(request, request.begun_at + timedelta(seconds=5))
    assert not is_alive(request, request.begun_at + timedelta(minutes=5))
    with subprocess.Popen(["/bin/true"]) as ended:
        while process_start(ended.pid):
            time.sleep(0.01)
        assert Path(f"/proc/{ended.pid}").exists()


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    _, near = made(tmp_path / "short")
    assert not has_own_directory(Path(near.control)) or len(str(tmp_path)) > 40
    deep = tmp_path / ("x" * 100)
    _, request = made(deep)
    assert has_own_directory(Path(request.control))
    assert len(request.control) < 60
    assert request.control != made(deep)[1].control


def test_old_runs_are_forgotten_living_ones_never(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "c", tmp_path, tmp_path)
    new, _ = made(tmp_path)
    old = runs_dir(tmp_path) / f"{utc_now() - timedelta(days=31):%Y%m%dT%H%M%SZ}-0000000a"
    living = runs_dir(tmp_path) / f"{utc_now() - timedelta(days=31):%Y%m%dT%H%M%SZ}-0000000b"
    for folder in (old, living):
        folder.mkdir()
    request = read_request(new)
    assert request
    write_request(living, Request(**{**_fields(request), "pid": os.getpid(), "started": process_start(os.getpid())}))
    being_made = runs_dir(tmp_path) / f"{utc_now():%Y%m%dT%H%M%SZ}-0000000c"
    being_made.mkdir()
    other = runs_dir(tmp_path) / "notes"
    other.mkdir()
    _forget_old(paths)
    assert set(runs_dir(tmp_path).iterdir()) == {new, living, being_made, other}
    for number in range(KEEP_RUNS + 5):
        (runs_dir(tmp_path) / f"{utc_now() - timedelta(days=1):%Y%m%dT%H%M%SZ}-{number:08x}").mkdir()
    _forget_old(paths)
    assert len([path for path in runs_dir(tmp_path).iterdir() if path not in {other, living}]) == KEEP_RUNS


# Locks and places


def test_an_asset_is_locked_until_its_holder_ends(tmp_path: Path) -> None:
    with hold(tmp_path, "social", Asset.REDIS, RUN):
        with pytest.raises(Locked, match=RUN), hold(tmp_path, "social", Asset.REDIS, "other"):
            pass
        with hold(tmp_path, "social", Asset.MEDIA, "other"), hold(tmp_path, "art", Asset.REDIS, "other"):
            pass
    with hold(tmp_path, "social", Asset.REDIS, "other"):
        pass
    (tmp_path / "locks" / "social.redis").write_text("\x1b[31m")
    with hold(tmp_path, "social", Asset.REDIS, RUN):
        (tmp_path / "locks" / "social.redis").write_text("\x1b[31m")
        with pytest.raises(Locked, match="another run"), hold(tmp_path, "social", Asset.REDIS, RUN):
            pass


def test_only_so_many_have_their_turn(tmp_path: Path) -> None:
    waited: list[int] = []
    stop = threading.Event()
    with turn(tmp_path, 2, stop.is_set, lambda: waited.append(1)), turn(tmp_path, 2, stop.is_set, lambda: None):
        assert waited == []
        third = threading.Thread(target=lambda: turn(tmp_path, 2, stop.is_set, lambda: waited.append(3)).__enter__())
        third.start()
        third.join(0.3)
        assert third.is_alive()
        stop.set()
        third.join(5)
        assert waited == [3]
        assert not third.is_alive()
    with turn(tmp_path, 1, lambda: False, lambda: waited.append(4)):
        assert waited == [3]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 4),
        ("[limits]\nruns = 7\n", 7),
        ("[limits]\nruns = 0\n", 4),
        ("[limits]\nruns = true\n", 4),
        ('[limits]\nruns = "2"\n', 4),
        ("limits = 3\n", 4),
        ("nonsense", 4),
        (b"\xff", 4),
    ],
)
def test_how_many_runs_may_work(tmp_path: Path, text: str | bytes, count: int) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert allowed(path) == count
    assert allowed(tmp_path / "absent") == 4


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([], 0),
        ([result(Asset.REDIS), result(Asset.MEDIA, JobState.SKIPPED)], 0),
        ([result(Asset.REDIS), result(Asset.MEDIA, in_part=True)], 3),
        ([result(Asset.REDIS), result(Asset.MEDIA, JobState.FAILED, exit_code=11)], 1),
        ([result(Asset.REDIS, JobState.FAILED, exit_code=11)], 11),
        ([result(Asset.REDIS, JobState.FAILED, exit_code=12)] * 2, 12),
        ([result(Asset.REDIS, JobState.FAILED, exit_code=2), result(Asset.MEDIA, JobState.FAILED, exit_code=11)], 1),
        ([result(Asset.REDIS, JobState.FAILED)], 1),
        ([result(Asset.REDIS, JobState.CANCELLED), result(Asset.MEDIA)], 130),
        ([result(Asset.REDIS, JobState.CANCELLED), result(Asset.MEDIA, JobState.FAILED, exit_code=1)], 1),
    ],
)
def test_exit_codes(results: list[JobResult], code: int) -> None:
    assert exit_code(results) == code


def test_a_result_survives_the_event() -> None:
    told = result(
        Asset.MEDIA,
        JobState.FAILED,
        snapshot="social/media/20261122T140211Z-00000001",
        bytes=5,
        seconds=1.5,
        error="no",
        next_step="look",
        in_part=True,
        warnings=("a", "b"),
        vaults=("local",),
        exit_code=11,
    )
    assert forms.parse_result(json.loads(json.dumps(forms.result_event(told)))) == told
    assert forms.parse_result({"host": "x"}) is None
    assert utc_now().tzinfo is UTC
    assert isinstance(utc_now(), datetime)
