"""The key commands, typed: what is shown once, read back, typed from paper, and written down."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from backends.archive.keys import new_identity
from backends.archive.keys_paper import qr_matrix
from backends.config.load import load
from tests.unit.test_key_paper import modules
from tui.cli.main import run

PATIENCE = 30.0
IDENTITY = re.compile(r"AGE-SECRET-KEY-1[0-9A-Z]{58}")


class Terminal:
    """A command in a terminal of its own, and what stands on it."""

    def __init__(self, home: Path, *arguments: str, columns: int = 80, rows: int = 24, **environment: str) -> None:
        self._leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tui", *arguments],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1", **places(home), **environment},
        )
        os.close(follower)

    def until(self, wanted: str) -> str:
        """Read until some text has appeared since the last call; what came."""
        begin = len(self.text)
        deadline = time.monotonic() + PATIENCE
        while wanted not in self.text[begin:]:
            assert time.monotonic() < deadline, self.text[begin:]
            assert self._read(), f"{wanted!r} never came: {self.text[begin:]}"
        return self.text[begin:]

    def _read(self) -> bool:
        ready, _, _ = select.select([self._leader], [], [], PATIENCE)
        try:
            data = os.read(self._leader, 1 << 16) if ready else b""
        except OSError:  # the other end is closed
            return False
        self.text += data.decode("utf-8", "replace")
        return bool(data)

    def type(self, text: str) -> None:
        os.write(self._leader, f"{text}\n".encode())

    def ended(self) -> int:
        while self._read():
            pass
        os.close(self._leader)
        return self.process.wait(PATIENCE)


def places(home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "MASTOVAULT_CONFIG": str(home / "config.toml"),
        "MASTOVAULT_STATE_DIR": str(home / "state"),
        "MASTOVAULT_CACHE_DIR": str(home / "cache"),
    }


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in places(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def shown_identity(text: str) -> str:
    """The identity that stands on the screen in groups."""
    bare = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|[▀▄█\s]", "", text)
    return "AGE-SECRET-KEY-1" + bare.partition("AGE-SECRET-KEY-1")[2].partition("Oneline")[0]


def test_a_new_key_is_shown_once_with_its_code_and_read_back(home: Path) -> None:
    terminal = Terminal(home, "key", "new")
    screen = terminal.until("Press Enter")
    identity = shown_identity(screen)
    assert IDENTITY.fullmatch(identity)
    plain = screen.replace("\x1b[?1049h\x1b[2J\x1b[H", "")
    code = [line.partition("\x1b[0m")[0] + "\x1b[0m" for line in plain.split("\n") if line.startswith("\x1b[30;")]
    wanted = qr_matrix(identity, 4)
    assert modules(code, ascii_only=False)[: len(wanted)] == wanted
    terminal.type("")
    between = terminal.until("Read the last 6 characters")
    assert "\x1b[?1049l" in between, "the screen with the identity is left before it is read back"
    terminal.type("WRONG1")
    assert "not what was shown" in terminal.until("Press Enter")
    terminal.type("")
    terminal.until("Read the last 6 characters")
    terminal.type(f"{identity[-6:-3].lower()} {identity[-3:]}")
    assert terminal.ended() == 0, terminal.text
    config = load(home / "config.toml")
    assert config.encryption.custody_confirmed == config.encryption.recovery
    assert config.encryption.custody_confirmed_at is not None
    assert config.encryption.signing_key is not None
    assert len(config.signers) == 1
    files = [path for path in home.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"config.toml", "identity.age", "signing.pem"}
    assert not any(identity in path.read_text() for path in files), "it is not kept here"

    terminal = Terminal(home, "key", "check", "--recovery")
    terminal.until("not shown): ")
    terminal.type(identity[:-1])
    assert "is no identity" in terminal.until("not shown): ")
    terminal.type(" ".join(re.findall(".{1,4}", identity.lower())))
    assert terminal.ended() == 0, terminal.text
    assert identity[20:] not in terminal.text.upper().replace(" ", "")
    assert "custody confirmed today" in terminal.text


def test_a_copy_that_is_not_read_back_makes_nothing(home: Path) -> None:
    terminal = Terminal(home, "key", "new", "--ascii", columns=60, rows=24)
    screen = terminal.until("Press Enter")
    assert "The QR code needs 112 columns and 39 rows, or 74 and 52; this terminal has 60 and 24." in screen
    assert screen.isascii()
    for _ in range(3):
        terminal.type("")
        terminal.until("Read the last 6 characters")
        terminal.type("NOTHIS")
    assert terminal.ended() == 12
    assert "nothing was made" in terminal.text
    assert [path.name for path in home.iterdir() if path.is_file()] == []


def lines(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert run(["key", *arguments]) == code, capsys.readouterr()
    return capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lines(capsys, *arguments, "--json", code=code))
    return found


def test_a_page_and_a_stick_confirm_nothing_by_themselves(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colleague = new_identity()[1]
    page, stick = home / "page.svg", home / "stick"
    made = document(
        capsys, "new", "--recovery-page", str(page), "--recovery-to", str(stick), "--recipient", colleague.upper()
    )
    assert made["recipients"] == [colleague, made["recipient"], made["recovery"]]
    assert made["custody_confirmed"] is False
    assert {each.stat().st_mode & 0o777 for each in (page, stick, home / "signing.pem")} == {0o600}
    own = IDENTITY.findall((home / "identity.age").read_text())[0]
    private = "".join((home / "signing.pem").read_text().splitlines()[1:-1])
    text = page.read_text()
    assert own not in text
    assert private not in text
    shown = document(capsys, "show")
    assert shown["custody"]["due"] is True
    assert shown["signing"]["public"] in text
    assert re.fullmatch(r"([0-9a-f]{4} ?){4}", shown["signing"]["fingerprint"])
    assert shown["signers"][0]["public"] == shown["signing"]["public"]
    assert own not in json.dumps(shown)

    assert run(["key", "check", "--confirm-custody", "--from", str(home / "identity.age")]) == 12
    said = capsys.readouterr().err
    assert "this is another identity" in said
    assert own not in said
    assert document(capsys, "show")["custody"]["confirmed"] is False
    assert run(["--read-only", "key", "check", "--confirm-custody", "--from", str(page)]) != 0
    stick.chmod(0o755)  # as on a stick whose file system knows no modes
    for source in (page, stick):
        assert document(capsys, "check", "--confirm-custody", "--from", str(source))["custody"]["due"] is False
    assert run(["key", "page", str(home / "again.svg"), "--from", str(stick)]) == 0
    assert (home / "again.svg").read_text().count("AGE-SECRET-KEY-1") == 1


def test_rotating_moves_the_old_identity_aside(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colleague = new_identity()[1]
    before = document(capsys, "new", "--recovery-to", str(home / "stick"), "--recipient", colleague)
    after = document(capsys, "rotate", "--drop", colleague)
    assert after["recipients"] == [after["recipient"], before["recovery"]]
    assert after["recipient"] != before["recipient"]
    assert after["old_identities"] == [before["identity"]]
    assert document(capsys, "show")["signing"]["path"] == before["signing_key"]
    again = document(capsys, "rotate", "--recovery-page", str(home / "page.svg"), "--compromised")
    assert again["recovery"] != before["recovery"]
    assert before["recovery"] not in again["recipients"]
    assert again["signing_key"] != before["signing_key"]
    assert len(again["old_identities"]) == 2
    assert len(document(capsys, "trust", "--list")["signers"]) == 2
    assert document(capsys, "check")["problems"] == []
    config = (home / "config.toml").read_bytes()
    assert run(["key", "rotate", "--drop", colleague]) == 2
    assert run(["key", "rotate", "--recovery"]) == 12, "there is no terminal to show it on"
    assert run(["--read-only", "key", "rotate"]) != 0
    assert (home / "config.toml").read_bytes() == config
    assert json.loads(lines(capsys, "rewrap", "--json")) == {"event": "summary", "results": []}


def test_rotating_after_the_identity_was_lost(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = document(capsys, "new", "--recovery-to", str(home / "stick"))
    (home / "identity.age").unlink()
    assert run(["key", "rotate"]) == 12
    assert "--drop" in capsys.readouterr().err
    after = document(capsys, "rotate", "--drop", before["recipient"])
    assert after["recipients"] == [after["recipient"], before["recovery"]]
    assert after["old_identities"] == []


def test_trusting_a_colleagues_machine(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document(capsys, "new", "--recovery-to", str(home / "stick"))
    public = document(capsys, "show")["signing"]["public"]
    name = document(capsys, "trust", "--list")["signers"][0]["name"]
    assert run(["key", "trust", "colleague", public]) == 2
    assert f"already, as {name}" in capsys.readouterr().err
    assert document(capsys, "trust", "--forget", name) == {"signers": []}
    assert "not in [signers]" in " ".join(document(capsys, "check", code=3)["problems"])
    lines(capsys, "trust", "colleague", public)
    assert document(capsys, "check")["signer"] == "colleague"
    for wrong in ([], ["only"], ["a", public, "--list"]):
        assert run(["key", "trust", *wrong]) == 2


def test_a_machine_that_only_backs_up_gets_a_signing_key(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = document(capsys, "new", "--signing-only")
    config = load(home / "config.toml")
    assert config.signers == {made["name"]: made["public"]}
    assert config.encryption.identity is None
    assert {path.name for path in home.iterdir()} == {"config.toml", "signing.pem"}
    assert run(["key", "new", "--signing-only"]) == 2
    assert run(["key", "rotate"]) == 2
    assert "no keys yet" in capsys.readouterr().err
    made = document(capsys, "new", "--recovery-to", str(home / "stick"))
    assert made["signing_key"] == str(home / "signing.pem"), "the one that is there"
