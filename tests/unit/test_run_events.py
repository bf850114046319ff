"""Run folders are read with suspicion: torn lines, garbage and foreign folders never break a watcher."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.model import Asset, JobResult, JobSnapshot, JobState
from backends.runs import events
from backends.runs.folder import folders, new_folder, read_request
from backends.runs.watch import RunsWatcher

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
kinds = st.sampled_from(["progress", "log", "question", "answered", "summary", "begun", "other"])
names = st.sampled_from(["job", "host", "asset", "state", "lines", "results", "id", "prompt", "at", "done", "total"])


def run_folder(state: Path) -> Path:
    folder, _ = new_folder(state, kind="backup", host="social", assets=[Asset.REDIS], options={})
    return folder


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.lists(st.binary(max_size=80) | st.tuples(kinds, st.dictionaries(names, json_values, max_size=6)), max_size=8))
def test_any_events_file_can_be_read(tmp_path: Path, content: list[bytes | tuple[str, dict[str, object]]]) -> None:
    folder = run_folder(tmp_path)
    lines = [
        line if isinstance(line, bytes) else json.dumps({"event": line[0], **line[1]}).encode() for line in content
    ]
    (folder / events.EVENTS).write_bytes(b"\n".join(lines))
    watcher = RunsWatcher(tmp_path)
    assert folder.name in {view.id for view in watcher.poll()}
    for line in watcher.log(folder.name)[0]:
        assert "\x1b" not in line.text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_request_can_be_read(tmp_path: Path, data: bytes) -> None:
    folder = run_folder(tmp_path)
    (folder / "run.json").write_bytes(data)
    request = read_request(folder)
    assert request is None or request.id == folder.name
    RunsWatcher(tmp_path).poll()


def test_events_come_back_as_they_were(tmp_path: Path) -> None:
    job = JobSnapshot(
        id="redis", host="social", asset=Asset.REDIS, state=JobState.RUNNING, step="read", done=3, total=9, rate=1.5
    )
    result = JobResult(
        host="social", asset=Asset.REDIS, state=JobState.FAILED, error="why", next_step="do", exit_code=11, bytes=4
    )
    assert events.parse_progress(events.progress_event(job)) == job
    assert events.parse_result(events.result_json(result)) == result


def test_a_torn_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    job = JobSnapshot(id="redis", host="social", asset=Asset.REDIS, state=JobState.RUNNING, step="read")
    line = json.dumps(events.progress_event(job)).encode() + b"\n"
    path = folder / events.EVENTS
    path.write_bytes(line[:20])
    watcher = RunsWatcher(tmp_path)
    assert watcher.poll()[0].jobs == ()
    with path.open("ab") as file:
        file.write(line[20:])
    assert watcher.poll()[0].jobs == (job,)


def test_foreign_folders_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "runs" / "something").mkdir(parents=True)
    (tmp_path / "runs" / "20260101T000000Z-00000000").mkdir()
    assert [folder.name for folder in folders(tmp_path)] == ["20260101T000000Z-00000000"]
    assert RunsWatcher(tmp_path).poll() == ()


def test_a_long_state_directory_gets_its_socket_elsewhere(tmp_path: Path) -> None:
    request = read_request(run_folder(tmp_path / ("x" * 120)))
    assert request is not None
    assert len(request.control) < 100
