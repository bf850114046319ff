"""Runs that need a secret: asked over the events, answered over the socket, never written down."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import asyncssh
import pytest

from backends.errors import MastovaultError
from backends.lab.lab import Lab
from backends.model import Asset, JobState, Secret
from backends.runs import control
from backends.runs.control_server import ControlServer
from backends.runs.events import EventWriter
from backends.runs.folder import read_request, runs_dir
from backends.runs.launch import start_run
from backends.runs.questions import Questions
from tests.runs_world import World

PASSPHRASE = "correct-horse-battery"


@pytest.fixture
def world(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose host `social` lets in only a key with a passphrase, and no agent holds it."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    made = World(lab, tmp_path)
    key = asyncssh.read_private_key(str(lab.directory / "client/id_ed25519"))
    locked = tmp_path / "locked"
    locked.touch(mode=0o600)
    key.write_private_key(str(locked), passphrase=PASSPHRASE)
    made.host("social", identity_file=str(locked))
    return made


def start(world: World, *assets: Asset, **options: object) -> str:
    return start_run(world.paths, kind="backup", host="social", assets=assets, options=options)


def nothing_holds(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            assert PASSPHRASE.encode() not in path.read_bytes()


def test_a_question_is_asked_once_and_answered_from_elsewhere(world: World) -> None:
    run = start(world, Asset.REDIS, Asset.SECRETS)
    view = world.until(lambda now: bool(now.questions), run)
    question = view.questions[0]
    assert "Passphrase" in question.prompt
    assert view.active
    control.answer(world.paths.state_dir, run, question.id, Secret(PASSPHRASE))
    view = world.until(lambda now: not now.active, run)
    assert [result.state for result in view.results] == [JobState.DONE] * 2
    assert view.questions == ()
    folder = runs_dir(world.paths.state_dir) / run
    assert (folder / "events.jsonl").read_text().count('"question"') == 1
    nothing_holds(folder)


def test_a_wrong_answer_fails_every_job_with_the_same_sentence(world: World) -> None:
    run = start(world, Asset.REDIS, Asset.SECRETS)
    question = world.until(lambda now: bool(now.questions), run).questions[0]
    with pytest.raises(MastovaultError, match="answered already"):
        control.answer(world.paths.state_dir, run, "nosuch", Secret("x"))
    control.answer(world.paths.state_dir, run, question.id, Secret("wrong"))
    view = world.until(lambda now: not now.active, run)
    assert {result.state for result in view.results} == {JobState.FAILED}
    assert len({result.error for result in view.results}) == 1
    assert "wrong" in (view.results[0].error or "")


def test_cancel_ends_the_wait_for_an_answer(world: World) -> None:
    run = start(world, Asset.SECRETS, Asset.REDIS)
    world.until(lambda now: bool(now.questions), run)
    control.cancel(world.paths.state_dir, run, "secrets")
    # The other job asks for itself.
    view = world.until(lambda now: any(question.job == "redis" for question in now.questions), run)
    assert view.results[0].state is JobState.CANCELLED
    control.answer(world.paths.state_dir, run, view.questions[0].id, Secret(PASSPHRASE))
    view = world.until(lambda now: not now.active, run)
    assert [result.state for result in view.results] == [JobState.CANCELLED, JobState.DONE]


def test_without_a_terminal_nobody_is_asked(world: World) -> None:
    code, results = world.results("social/redis")
    assert code == 1
    assert "no passphrase was given" in (results["social/redis"]["error"] or "")


@pytest.mark.parametrize(("typed", "code"), [(PASSPHRASE + "\n", 0), ("\n", 1), ("\x04", 1), ("\x03", 130)])
def test_a_terminal_asks_and_shows_nothing_of_it(world: World, typed: str, code: int) -> None:
    leader, follower = pty.openpty()
    command = subprocess.Popen(
        [sys.executable, "-m", "tui", "backup", "social/redis"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        env=world.environment(),
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
    )
    os.close(follower)
    shown = b""
    while b"Passphrase" not in shown:
        shown += os.read(leader, 4096)
    # The prompt turns the echo off before it is shown.
    os.write(leader, typed.encode())
    reader = threading.Thread(target=lambda: drain(leader, collected))
    collected: list[bytes] = []
    reader.start()
    assert command.wait(30) == code
    reader.join(5)
    os.close(leader)
    assert PASSPHRASE.encode() not in shown + b"".join(collected)


def drain(handle: int, into: list[bytes]) -> None:
    try:
        while data := os.read(handle, 4096):
            into.append(data)
    except OSError:
        return


def test_nobody_answers_in_time(tmp_path: Path) -> None:
    events = EventWriter(tmp_path)
    began = time.monotonic()
    assert Questions(events, interactive=True, wait_seconds=0.3).ask("redis", "Password", lambda: False) is None
    assert 0.2 < time.monotonic() - began < 5
    assert Questions(events, interactive=False).ask("redis", "Password", lambda: False) is None
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["question", "answered"]


def test_a_second_answer_is_refused(tmp_path: Path) -> None:
    questions = Questions(EventWriter(tmp_path), interactive=True)
    answers: list[Secret | None] = []
    asking = threading.Thread(target=lambda: answers.append(questions.ask("redis", "Password", lambda: False)))
    asking.start()
    while not (tmp_path / "events.jsonl").read_text():
        time.sleep(0.01)
    number = json.loads((tmp_path / "events.jsonl").read_text())["id"]
    questions.answer({"question": number, "secret": "first"})
    asking.join(5)
    with pytest.raises(MastovaultError):
        questions.answer({"question": number, "secret": "second"})
    assert answers == [Secret("first")]


@pytest.mark.parametrize(
    "message",
    [b"\n", b"nonsense\n", b"[]\n", b"{}\n", b'{"do": []}\n', b'{"do": "cancel"}\n', b"[" * 60_000 + b"\n", b"\xff\n"],
)
def test_what_is_no_message_is_refused_and_the_next_is_heard(tmp_path: Path, message: bytes) -> None:
    heard: list[object] = []

    def handle(told: object) -> None:
        assert isinstance(told, dict)
        if told["do"] != "cancel":
            raise ValueError("unknown")
        heard.append(told["job"])

    server = ControlServer(tmp_path / "control.sock", handle)
    server.start()
    try:
        assert (tmp_path / "control.sock").stat().st_mode & 0o777 == 0o600
        for sent, good in ((message, False), (b'{"do": "cancel", "job": null}\n', True)):
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(str(tmp_path / "control.sock"))
                line.sendall(sent)
                assert json.loads(line.makefile("rb").readline())["ok"] is good
    finally:
        server.stop()
    assert heard == [None]
    assert not (tmp_path / "control.sock").exists()


def test_only_the_owner_and_root_are_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.runs.control_server._peer", lambda line: os.getuid() + 1)
    server = ControlServer(tmp_path / "control.sock", lambda message: pytest.fail("heard"))
    server.start()
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(tmp_path / "control.sock"))
            assert line.makefile("rb").readline() == b""
    finally:
        server.stop()


def test_the_folder_of_a_run_tells_nobody_else(world: World) -> None:
    run = start(world, Asset.REDIS, interactive=False)
    world.until(lambda now: not now.active, run)
    request = read_request(runs_dir(world.paths.state_dir) / run)
    assert request
    assert request.options == {"interactive": False}
    assert request.who
    assert request.pid > 1
