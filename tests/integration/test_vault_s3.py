"""S3 vaults against a real server and against moto's: uploads, versions, Object Lock, credentials."""

from __future__ import annotations

import os
import secrets
import stat
import time
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends.archive.fanout import Fanout
from backends.config.schema import S3Vault as S3Config
from backends.errors import AlreadyExists, VaultError
from backends.vault import s3_upload
from backends.vault.s3 import PROBE, S3Vault, on_this_machine
from tests.servers.s3 import ACCESS, SECRET, S3Server, moto_server, rclone_server, s3_keys

__all__ = ["moto_server", "rclone_server", "s3_keys"]
MIB = 1024 * 1024


def store(vault: S3Vault, key: str, data: bytes, piece: int = 300_000) -> None:
    with vault.open_upload(key) as upload:
        for at in range(0, len(data), piece):
            upload.write(data[at : at + piece])
        upload.commit()


def content(vault: S3Vault, key: str) -> bytes:
    with vault.read(key) as stored:
        return stored.read()


def keys(vault: S3Vault, prefix: str = "") -> list[str]:
    return [found.key for found in vault.list(prefix)]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 1 MiB in memory, from the 4th on each larger by half a MiB and in a file, up to 3 MiB."""
    monkeypatch.setattr(s3_upload, "FIRST_PART", MIB)
    monkeypatch.setattr(s3_upload, "_SAME_UNTIL", 4)
    monkeypatch.setattr(s3_upload, "_STEP", MIB // 2)
    monkeypatch.setattr(s3_upload, "LARGEST_PART", 3 * MIB)


def test_parts_reach_a_tebibyte_and_providers_with_few_parts() -> None:
    sizes = [s3_upload.part_size(number) for number in range(1, 10_001)]
    assert sum(sizes) > 2 * 1024**4
    assert sum(sizes[:1000]) > 90 * 1024**3
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[255], sizes[-1]) == (5 * MIB, 5 * MIB, 256 * MIB)
    assert sizes[256] > sizes[255]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 4 * MIB, 21 * MIB + 12_345])
def test_any_length_is_stored_whole(rclone_server: S3Server, size: int) -> None:
    data = secrets.token_bytes(size)
    vault = rclone_server.vault()
    store(vault, "hosts/a/b", data)
    assert [(found.key, found.bytes) for found in vault.list()] == [("hosts/a/b", size)]
    assert content(vault, "hosts/a/b") == data


def test_parts_that_every_provider_takes(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto refuses parts below 5 MiB, as AWS does; both the first ones and the larger ones in files are taken."""
    monkeypatch.setattr(s3_upload, "FIRST_PART", 5 * MIB)
    monkeypatch.setattr(s3_upload, "_SAME_UNTIL", 2)
    monkeypatch.setattr(s3_upload, "_STEP", MIB)
    data = secrets.token_bytes(23 * MIB)
    vault = moto_server.vault()
    store(vault, "big", data)
    assert content(vault, "big") == data


@pytest.mark.usefixtures("small_parts")
def test_an_abort_removes_the_parts(moto_server: S3Server) -> None:
    bucket = moto_server.make_bucket()
    vault = moto_server.vault(bucket)
    upload = vault.open_upload("hosts/a/b")
    for _ in range(12):
        upload.write(secrets.token_bytes(MIB // 2))
    assert "Uploads" in moto_server.client().list_multipart_uploads(Bucket=bucket)
    upload.abort()
    upload.abort()
    assert "Uploads" not in moto_server.client().list_multipart_uploads(Bucket=bucket)
    assert keys(vault) == []


def test_only_old_uploads_of_ours_are_cleaned_away(rclone_server: S3Server) -> None:
    bucket = rclone_server.make_bucket()
    client = rclone_server.client()
    for key in ("some/prefix/hosts/a/x", "some/prefix/hosts/ab/y", "else/where", "some/prefix/ not ours"):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    vault = rclone_server.vault(bucket)
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert vault.clean_leftovers(datetime.now(UTC) - timedelta(days=1)) == 0
    assert vault.clean_leftovers(later, "hosts/a") == 1
    assert vault.clean_leftovers(later) == 1
    left = {found["Key"] for found in client.list_multipart_uploads(Bucket=bucket)["Uploads"]}
    assert left == {"else/where", "some/prefix/ not ours"}


def test_no_room_for_a_part_is_said(
    rclone_server: S3Server, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    vault = rclone_server.vault()
    with pytest.raises(VaultError, match="No space left") as caught:
        store(vault, "big", bytes(20 * MIB))
    assert "TMPDIR" in caught.value.next_step
    assert keys(vault) == []


def test_conditions_are_known_only_where_they_are_kept(rclone_server: S3Server, moto_server: S3Server) -> None:
    for server, real in ((rclone_server, False), (moto_server, True)):
        vault = server.vault()
        assert vault.exclusive() is real
        assert vault.exclusive() is real
        assert keys(vault) == [PROBE]
        vault.put_new("a", b"first")
        with pytest.raises(AlreadyExists):
            vault.put_new("a", b"first")
        assert server.vault(vault._bucket.config.bucket).exclusive() is real


def test_a_rewritten_object_has_a_new_time(rclone_server: S3Server) -> None:
    """Leases tell from it how old they are."""
    vault = rclone_server.vault()
    store(vault, "leases/x", b"1")
    (first,) = vault.list("leases/")
    time.sleep(0.02)
    store(vault, "leases/x", b"2")
    (second,) = vault.list("leases/")
    assert timedelta(0) < second.modified_at - first.modified_at < timedelta(seconds=10)


def test_foreign_objects_are_passed_over(moto_server: S3Server) -> None:
    bucket = moto_server.make_bucket()
    vault = moto_server.vault(bucket)
    vault.put_new("hosts/a", b"x")
    for key in ("hosts/", "hosts//b", "hosts/.hidden", "../x", "hosts/ä", "hosts/a b", "hosts/\x1b[2J", "x" * 300):
        moto_server.client().put_object(Bucket=bucket, Key=f"some/prefix/{key}", Body=b"")
    moto_server.client().put_object(Bucket=bucket, Key="some/prefixed", Body=b"")
    assert keys(vault) == ["hosts/a"]
    assert keys(moto_server.vault(bucket, prefix="")) == ["some/prefix/hosts/a", "some/prefixed"]


def test_a_listing_of_many_pages(rclone_server: S3Server) -> None:
    wanted = sorted(f"many/{number:05d}-{secrets.token_hex(2)}" for number in range(2050))
    place = rclone_server.directory / "many-pages/some/prefix"
    (place / "many").mkdir(parents=True)
    for key in wanted:
        (place / key).touch()
    rclone_server.await_bucket("many-pages")
    vault = rclone_server.vault("many-pages")
    assert keys(vault) == wanted
    assert keys(vault, wanted[1500]) == [wanted[1500]]


def test_versions_are_seen_and_kept_by_the_provider(moto_server: S3Server) -> None:
    bucket = moto_server.make_bucket()
    vault = moto_server.vault(bucket)
    assert (vault.look().versioning, vault.look().object_lock) == ("off", "")
    versioned = {"Status": "Enabled"}
    moto_server.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration=versioned)
    assert vault.look().versioning == "on"
    vault.put_new("a", b"x")
    vault.delete("a")
    assert keys(vault) == []
    vault.put_new("a", b"again")
    assert content(vault, "a") == b"again"
    assert len(moto_server.client().list_object_versions(Bucket=bucket)["Versions"]) == 2


def test_every_object_is_locked_but_leases(moto_server: S3Server) -> None:
    bucket = moto_server.make_bucket(lock=True)
    vault = moto_server.vault(bucket, lock_days=30, lock_mode="compliance")
    store(vault, "small", b"x")
    vault.put_new("record.json", b"{}")
    store(vault, "leases/x", b"x")
    for key in ("small", "record.json"):
        until = vault.locked_until(key)
        assert until is not None
        assert timedelta(days=29) < until - datetime.now(UTC) < timedelta(days=31)
    assert vault.locked_until("leases/x") is None
    assert vault.look().object_lock == "compliance, 30 days"
    hold = {"Status": "ON"}
    moto_server.client().put_object_legal_hold(Bucket=bucket, Key="some/prefix/leases/x", LegalHold=hold)
    held = vault.locked_until("leases/x")
    assert held is not None
    assert held.year == 9999


def test_a_lock_that_the_bucket_has_by_default(moto_server: S3Server) -> None:
    bucket = moto_server.make_bucket(lock=True)
    vault = moto_server.vault(bucket)
    assert vault.look().object_lock == "possible, not by default"
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 7}}
    settings = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    moto_server.client().put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=settings)
    assert vault.look().object_lock == "governance, 7 days"


def test_classes_are_for_data_not_for_records(moto_server: S3Server) -> None:
    bucket = moto_server.make_bucket()
    vault = moto_server.vault(bucket, storage_class="STANDARD_IA", sse="AES256")
    store(vault, "data.age", b"x")
    vault.put_new("manifest.json", b"{}")

    def of(key: str) -> tuple[str, str]:
        known = moto_server.client().head_object(Bucket=bucket, Key=f"some/prefix/{key}")
        return known.get("StorageClass", "STANDARD"), known.get("ServerSideEncryption", "")

    assert of("data.age") == ("STANDARD_IA", "AES256")
    assert of("manifest.json") == ("STANDARD", "AES256")


@pytest.mark.usefixtures("small_parts")
def test_two_buckets_are_fed_at_once(rclone_server: S3Server, moto_server: S3Server) -> None:
    vaults = [rclone_server.vault(), moto_server.vault(), rclone_server.vault()]
    data = secrets.token_bytes(3 * MIB // 4)
    fanout = Fanout(vaults, "some/object")
    fanout.write(data)
    fanout.commit()
    assert [content(vault, "some/object") for vault in vaults] == [data] * 3


def test_keys_from_commands(rclone_server: S3Server, s3_keys: tuple[str, str], tmp_path: Path) -> None:
    commands = {}
    for name, value in zip(("access_key", "secret_key"), s3_keys, strict=True):
        (tmp_path / name).touch(mode=stat.S_IRUSR | stat.S_IWUSR)
        (tmp_path / name).write_text(value + "\n")
        commands[f"{name}_command"] = f"cat {tmp_path / name}"
    bucket = rclone_server.make_bucket()
    settings = {"type": "s3", "bucket": bucket, "endpoint_url": rclone_server.endpoint_url}
    vault = S3Vault("v", S3Config.model_validate({**settings, **commands}))
    vault.put_new("a", b"x")
    assert content(vault, "a") == b"x"


def test_keys_by_the_usual_chain(
    rclone_server: S3Server, s3_keys: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "credentials"
    place.write_text(f"[backup]\naws_access_key_id = {s3_keys[0]}\naws_secret_access_key = {s3_keys[1]}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(place))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    settings = {"type": "s3", "bucket": rclone_server.make_bucket(), "endpoint_url": rclone_server.endpoint_url}
    vault = S3Vault("v", S3Config.model_validate({**settings, "profile": "backup"}))
    vault.put_new("a", b"x")
    assert keys(vault) == ["a"]
    with pytest.raises(VaultError, match="profile"):
        keys(S3Vault("v", S3Config.model_validate({**settings, "profile": "other"})))
    with pytest.raises(VaultError, match="no credentials"):
        keys(S3Vault("v", S3Config.model_validate(settings)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"access_key_env": "MASTOVAULT_NO_SUCH", "secret_key_env": SECRET}, "variable MASTOVAULT_NO_SUCH"),
        ({"access_key_env": ACCESS}, "only one of its two keys"),
        ({"access_key_command": "false", "secret_key_env": SECRET}, "access_key_command of the vault v failed"),
        ({"access_key_env": ACCESS, "secret_key_command": "/no/such/program"}, "could not be run"),
    ],
)
def test_keys_that_cannot_be_had(rclone_server: S3Server, settings: dict[str, str], said: str) -> None:
    vault = S3Vault("v", S3Config.model_validate({"type": "s3", "bucket": "abc", **settings}))
    with pytest.raises(VaultError, match=said) as caught:
        keys(vault)
    assert caught.value.next_step


def test_a_wrong_secret_is_said_and_shown_nowhere(rclone_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = rclone_server.make_bucket()
    monkeypatch.setenv(SECRET, "wrong-and-not-to-be-seen")
    vault = rclone_server.vault(bucket)
    for attempt in (
        lambda: keys(vault),
        lambda: vault.put_new("a", b"x"),
        lambda: vault.read("a"),
        lambda: list(vault.read_many(["a", "b"], 10)),
        lambda: store(vault, "b", b"x"),
    ):
        with pytest.raises(VaultError, match="does not accept the secret key") as caught:
            attempt()
        shown = "".join(traceback.format_exception(caught.value, chain=True)) + repr(vault) + repr(vault.__dict__)
        assert "not-to-be-seen" not in shown
        assert os.environ[ACCESS] not in shown
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("endpoint", "here"),
    [
        (None, False),
        ("https://s3.eu-central-1.amazonaws.com", False),
        ("http://127.0.0.1:9000", True),
        ("http://127.1.2.3", True),
        ("http://[::1]:9000", True),
        ("http://localhost:9000", True),
        ("http://LocalHost.:9000", True),
        ("http://s3.localhost", True),
        ("http://0.0.0.0:9000", True),
        ("http://192.0.2.7:9000", False),
        ("http://[2001:db8::7]", False),
        ("nonsense", False),
        ("http://[::1", False),
    ],
)
def test_where_an_endpoint_is(endpoint: str | None, here: bool) -> None:
    assert on_this_machine(endpoint) is here
    vault = S3Vault("v", S3Config(type="s3", bucket="abc", endpoint_url=endpoint))
    assert vault.offsite is not here
    assert (vault.machine_id() is None) or here
    assert vault.free_bytes() is None
    assert S3Vault("v", S3Config(type="s3", bucket="abc", endpoint_url=endpoint, offsite=here)).offsite is here


def test_a_place_is_shown_clean() -> None:
    vault = S3Vault("v", S3Config(type="s3", bucket="abc", prefix="/a/b\x1b[2J//"))
    assert vault.where == "s3://abc/a/b�[2J"
    assert S3Vault("v", S3Config(type="s3", bucket="abc")).where == "s3://abc"
