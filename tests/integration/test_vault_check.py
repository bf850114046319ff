"""A vault check says what a vault can do, leaves nothing behind, and ends when nobody answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from backends.config.schema import DirectoryVault as DirectoryConfig
from backends.config.schema import SftpVault as SftpConfig
from backends.errors import VaultDenied
from backends.operations import vault_check_steps
from backends.operations.vault_check import STEPS, VaultReport, check_vault, prove
from backends.vault.base import StoredObject
from backends.vault.directory import DirectoryVault
from backends.vault.format import prepare
from tests.contract.faulty import CALLS, FaultyVault
from tests.servers.s3 import S3Server, moto_server, rclone_server, s3_keys
from tests.servers.sftp import config_for, shared_server
from tui.cli.main import run

__all__ = ["moto_server", "rclone_server", "s3_keys"]


class Ahead(DirectoryVault):
    """Its clock is not ours."""

    off = timedelta()

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        for found in super().list(prefix):
            yield replace(found, modified_at=found.modified_at + self.off)


class Forgetful(DirectoryVault):
    """Says that it wrote, and did not."""

    def put_new(self, key: str, data: bytes) -> None:
        pass


class Keeps(DirectoryVault):
    """Lets nothing be removed."""

    def delete(self, key: str) -> None:
        raise VaultDenied("these credentials may not delete")


def said(report: VaultReport) -> dict[str, str]:
    return {step.name: step.said for step in report.steps if not step.ok}


def everything(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def test_a_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    report = check_vault("local", DirectoryConfig(type="directory", path=tmp_path / "deep" / "vault"))
    assert report.good
    assert report.usable
    assert [step.name for step in report.steps] == list(STEPS)
    assert (report.name, report.where) == ("local", str(tmp_path / "deep" / "vault"))
    assert report.clock_seconds is not None
    assert abs(report.clock_seconds) < 2
    assert report.free_bytes
    assert report.exclusive
    assert (report.found, report.foreign, report.next_step) == (None, (), "")
    assert everything(tmp_path) == []


def test_a_server(tmp_path: Path) -> None:
    report = check_vault("offsite", config_for(shared_server(), tmp_path / "deep" / "vault"))
    assert report.good, said(report)
    assert everything(tmp_path) == []


@pytest.mark.parametrize("server", ["moto_server", "rclone_server"])
def test_a_bucket(request: pytest.FixtureRequest, server: str) -> None:
    running: S3Server = request.getfixturevalue(server)
    report = check_vault("offsite", running.config())
    assert report.good, said(report)
    assert report.exclusive is (server == "moto_server")
    assert report.host_key is None


def test_a_bucket_that_is_not_there(moto_server: S3Server) -> None:
    report = check_vault("offsite", moto_server.config("no-such-bucket"))
    assert not report.usable
    assert "no-such-bucket" in said(report)["reach"]


def test_a_vault_that_is_there_already(tmp_path: Path) -> None:
    vault = DirectoryVault("v", tmp_path)
    prepare(vault, ["age1a", "age1b"])
    (tmp_path / "holiday.jpg").write_text("")
    before = everything(tmp_path)
    report = prove(vault, recipients=["age1b", "age1c"])
    assert report.good
    assert report.found is not None
    assert report.found.id in report.steps[0].said
    assert "2 recipients, ours among them" in report.steps[0].said
    assert report.ours is True
    assert report.foreign == ("holiday.jpg",)
    assert prove(vault, recipients=["age1c"]).ours is False
    assert prove(vault).ours is None
    assert everything(tmp_path) == before


def test_a_newer_format_is_not_usable(tmp_path: Path) -> None:
    (tmp_path / "mastovault.json").write_text('{"format": 2}')
    report = prove(DirectoryVault("v", tmp_path))
    assert not report.usable
    assert "newer Mastovault" in said(report)["reach"]
    assert report.next_step == "Update Mastovault."
    assert everything(tmp_path) == ["mastovault.json"]


@pytest.mark.parametrize(
    ("off", "words"), [(timedelta(days=2), "2 days ahead of"), (timedelta(minutes=-7), "7 minutes behind")]
)
def test_a_clock_that_is_wrong(tmp_path: Path, off: timedelta, words: str) -> None:
    vault = Ahead("v", tmp_path)
    vault.off = off
    report = prove(vault)
    assert report.usable
    assert not report.good
    assert words in said(report)["clock"]
    assert report.clock_seconds is not None
    assert abs(report.clock_seconds - off.total_seconds()) < 3
    vault.off = timedelta(minutes=4)
    assert prove(vault).good


def test_what_is_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_check_steps, "_AGAIN", (0.01,))
    report = prove(Forgetful("v", tmp_path))
    assert not report.usable
    assert {"read", "list"} <= set(said(report))


def test_nothing_can_be_removed(tmp_path: Path) -> None:
    report = prove(Keeps("v", tmp_path))
    assert report.usable
    assert not report.good
    assert "prune does not" in said(report)["delete"]
    assert len(list((tmp_path / "leases").iterdir())) == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_every_call_may_fail_once(tmp_path: Path, call: str, nth: int, after: bool) -> None:
    """The step says so; what was written is removed all the same."""
    vault = FaultyVault(DirectoryVault("v", tmp_path), call, nth, after=after)
    report = prove(vault)
    assert report.good or f"{call} failed" in " ".join(said(report).values())
    assert [path for path in everything(tmp_path) if "probe" in path] == []
    assert prove(DirectoryVault("v", tmp_path)).good


@pytest.mark.parametrize("call", CALLS)
def test_a_vault_that_is_gone_for_good(tmp_path: Path, call: str) -> None:
    report = prove(FaultyVault(DirectoryVault("v", tmp_path), call, for_good=True))
    assert not report.good
    assert report.usable is (call in {"open_upload", "write", "commit", "delete"})


def test_nobody_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"root@127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        report = check_vault("v", config_for(shared_server(), tmp_path, address=address), patience=0.5)
    assert time.monotonic() - began < 4
    assert "did not answer within 0.5 seconds" in said(report)["reach"]
    assert said(report)["write"] == "not tried"
    assert not report.usable


def test_a_server_whose_key_is_not_known(tmp_path: Path) -> None:
    report = check_vault("v", config_for(shared_server(), tmp_path, known_hosts=tmp_path / "none"))
    assert report.host_key is not None
    assert report.host_key.fingerprint in said(report)["reach"]
    assert "accept" in report.next_step


def test_a_key_is_accepted_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, known = shared_server(), tmp_path / "known_hosts"
    monkeypatch.setenv("MASTOVAULT_CONFIG", str(tmp_path / "config.toml"))
    place = f"sftp://root@127.0.0.1:{server.port}{tmp_path}/vault"
    add = ["vault", "add", "nas", place, "--identity-file", str(server.client_key), "--known-hosts", str(known)]
    assert run([*add, "--accept-key", "SHA256:other"]) == 1
    assert not known.exists()
    key = check_vault("nas", config_for(server, tmp_path, known_hosts=known)).host_key
    assert key is not None
    assert run([*add, "--accept-key", key.fingerprint]) == 0
    assert "[vaults.nas]" in (tmp_path / "config.toml").read_text()


def test_settings_that_are_wrong(tmp_path: Path) -> None:
    config = SftpConfig(type="sftp", address="a:b@c:d", path=str(tmp_path))
    report = check_vault("v", config)
    assert "cannot be read" in said(report)["reach"]
    assert not report.usable
