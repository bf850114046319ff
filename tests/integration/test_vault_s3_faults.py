"""Bad days of an S3 vault: throttling, lost connections, no rights, another region, no room, a bucket that is gone."""

from __future__ import annotations

import http.server
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from backends.errors import AlreadyExists, VaultDenied, VaultError, VaultFull
from backends.vault import s3_bucket, s3_upload
from backends.vault.s3 import S3Vault
from backends.vault.s3_errors import VaultGone
from tests.servers.certificate import certificate
from tests.servers.s3 import S3Server, moto_server, rclone_server, s3_keys
from tests.servers.s3_faults import Asked, Fault, FaultyS3

__all__ = ["moto_server", "rclone_server", "s3_keys"]
MIB = 1024 * 1024
Use = Callable[[S3Vault], object]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries are short, parts small."""
    monkeypatch.setattr(s3_bucket, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(s3_bucket, "_LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(s3_upload, "FIRST_PART", MIB)


@pytest.fixture
def proxy(rclone_server: S3Server) -> Iterator[FaultyS3]:
    with FaultyS3(rclone_server.endpoint_url) as running:
        yield running


@pytest.fixture
def vault(proxy: FaultyS3, rclone_server: S3Server) -> Iterator[S3Vault]:
    made = rclone_server.vault(endpoint_url=proxy.endpoint_url)
    yield made
    made.close()


def store(vault: S3Vault, key: str, data: bytes) -> None:
    with vault.open_upload(key) as upload:
        for at in range(0, len(data), 300_000):
            upload.write(data[at : at + 300_000])
        upload.commit()


def content(vault: S3Vault, key: str) -> bytes:
    with vault.read(key) as stored:
        return stored.read()


def keys(vault: S3Vault) -> list[str]:
    return [found.key for found in vault.list()]


def part(number: int) -> Callable[[Asked], bool]:
    return lambda asked: re.search(rf"[?&]partNumber={number}(&|$)", asked.path) is not None


USES: dict[str, Use] = {
    "upload": lambda vault: store(vault, "new", b"x"),
    "large upload": lambda vault: store(vault, "new", bytes(2 * MIB)),
    "put_new": lambda vault: vault.put_new("newer", b"x"),
    "read": lambda vault: content(vault, "old"),
    "read_many": lambda vault: list(vault.read_many(["old", "old"], 10)),
    "list": keys,
    "delete": lambda vault: vault.delete("old"),
    "exclusive": lambda vault: vault.exclusive(),
    "locked_until": lambda vault: vault.locked_until("old"),
    "clean_leftovers": lambda vault: vault.clean_leftovers(datetime.now(UTC)),
}


@pytest.mark.parametrize(
    ("use", "status", "code"),
    [
        *((use, 503, "SlowDown") for use in USES),
        *((use, 500, "InternalError") for use in ("large upload", "read", "list")),
        *((use, 0, "") for use in ("upload", "large upload", "put_new", "read", "list", "delete")),
    ],
)
def test_what_passes_is_tried_again(vault: S3Vault, proxy: FaultyS3, use: str, status: int, code: str) -> None:
    vault.put_new("old", b"data")
    fault = proxy.fail(Fault(times=3, status=status, code=code, lose_request=not status))
    USES[use](vault)
    assert fault.times == 0


def test_it_is_not_tried_for_ever(vault: S3Vault, proxy: FaultyS3) -> None:
    vault.put_new("old", b"data")
    proxy.fail(Fault(method="DELETE", status=503, code="SlowDown"))
    with pytest.raises(VaultError, match="overloaded or out of order") as caught:
        vault.delete("old")
    assert caught.value.next_step
    assert proxy.count("DELETE") == s3_bucket.TRIES
    assert keys(vault) == ["old"]


@pytest.mark.parametrize("how", [{"status": 500}, {"lose_request": True}, {"lose_answer": True}])
def test_parts_are_sent_again(vault: S3Vault, proxy: FaultyS3, how: dict[str, int]) -> None:
    data = secrets.token_bytes(9 * MIB)
    first = proxy.fail(Fault(method="PUT", when=part(3), times=2, **how))  # type: ignore[arg-type]
    second = proxy.fail(Fault(method="PUT", when=part(7), times=1, **how))  # type: ignore[arg-type]
    store(vault, "big", data)
    assert (first.times, second.times) == (0, 0)
    assert content(vault, "big") == data


def test_a_completion_whose_answer_was_lost_counts(vault: S3Vault, proxy: FaultyS3) -> None:
    data = secrets.token_bytes(3 * MIB)
    fault = proxy.fail(Fault(method="POST", has="uploadId=", times=1, lose_answer=True))
    store(vault, "big", data)
    assert fault.times == 0
    assert content(vault, "big") == data


def test_an_upload_that_fails_leaves_nothing(vault: S3Vault, proxy: FaultyS3) -> None:
    proxy.fail(Fault(method="PUT", when=part(4), status=403, code="AccessDenied"))
    with pytest.raises(VaultDenied, match="write objects"):
        store(vault, "big", bytes(12 * MIB))
    assert keys(vault) == []
    assert proxy.count("DELETE", "uploadId=") == 1
    assert vault.clean_leftovers(datetime.now(UTC) + timedelta(days=1)) == 0
    proxy.faults.clear()
    store(vault, "big", bytes(2 * MIB))
    assert keys(vault) == ["big"]


def test_an_upload_is_cut_for_good(vault: S3Vault, proxy: FaultyS3) -> None:
    upload = vault.open_upload("big")
    upload.write(bytes(3 * MIB))
    proxy.fail(Fault(lose_request=True))
    with pytest.raises(VaultError, match=r"the connection to .* was lost"):
        upload.write(bytes(20 * MIB))
    upload.abort()
    proxy.faults.clear()
    assert keys(vault) == []
    assert vault.clean_leftovers(datetime.now(UTC) + timedelta(days=1)) == 1, "what could not be removed is a leftover"


def test_a_put_whose_answer_was_lost_is_ours(moto_server: S3Server) -> None:
    with FaultyS3(moto_server.endpoint_url) as proxy:
        vault = moto_server.vault(endpoint_url=proxy.endpoint_url)
        assert vault.exclusive()
        proxy.fail(Fault(method="PUT", has="/a", times=1, lose_answer=True))
        vault.put_new("a", b"mine")
        assert content(vault, "a") == b"mine"
        proxy.fail(Fault(method="PUT", has="/a", times=1, lose_request=True))
        with pytest.raises(AlreadyExists):
            vault.put_new("a", b"theirs")
        assert content(vault, "a") == b"mine"


def test_a_conflict_of_two_writers_is_tried_again(moto_server: S3Server) -> None:
    with FaultyS3(moto_server.endpoint_url) as proxy:
        vault = moto_server.vault(endpoint_url=proxy.endpoint_url)
        proxy.fail(Fault(method="PUT", times=2, status=409, code="ConditionalRequestConflict"))
        vault.put_new("a", b"x")
        proxy.fail(Fault(method="PUT", status=409, code="ConditionalRequestConflict"))
        with pytest.raises(AlreadyExists):
            vault.put_new("b", b"x")


def test_a_provider_without_conditions(vault: S3Vault, proxy: FaultyS3) -> None:
    conditional = lambda asked: "If-None-Match" in asked.headers  # noqa: E731
    proxy.fail(Fault(method="PUT", when=conditional, status=501, code="NotImplemented"))
    assert not vault.exclusive()
    vault.put_new("a", b"x")
    with pytest.raises(AlreadyExists):
        vault.put_new("a", b"y")
    assert content(vault, "a") == b"x"


@pytest.mark.parametrize("cuts", [1, 4])
def test_a_cut_download_goes_on(vault: S3Vault, proxy: FaultyS3, cuts: int) -> None:
    data = secrets.token_bytes(3 * MIB)
    store(vault, "big", data)
    proxy.fail(Fault(method="GET", has="/big", times=cuts, cut_answer=500_000))
    assert content(vault, "big") == data
    conditions = [asked.headers.get("If-Match") for asked in proxy.asked if asked.headers.get("Range")]
    assert len(conditions) == cuts
    assert all(conditions)


def test_a_download_that_is_always_cut_fails(vault: S3Vault, proxy: FaultyS3) -> None:
    store(vault, "big", bytes(2 * MIB))
    proxy.fail(Fault(method="GET", has="/big", cut_answer=0))
    with pytest.raises(VaultError, match="again and again") as caught:
        content(vault, "big")
    assert caught.value.next_step


def test_what_was_replaced_while_it_was_read_is_not_mixed(vault: S3Vault, proxy: FaultyS3) -> None:
    store(vault, "big", bytes(3 * MIB))
    proxy.fail(Fault(method="GET", has="/big", times=1, cut_answer=2 * MIB))
    with vault.read("big") as stored:
        stored.read(MIB)
        store(vault, "big", secrets.token_bytes(3 * MIB))
        with pytest.raises(VaultError, match="replaced while it was read"):
            stored.read()


def test_read_many_survives_what_passes(vault: S3Vault, proxy: FaultyS3) -> None:
    there = {f"some/{number}": secrets.token_bytes(2000) for number in range(20)}
    for key, data in there.items():
        store(vault, key, data)
    proxy.fail(Fault(method="GET", has="/some/", skip=3, times=2, status=503, code="SlowDown"))
    proxy.fail(Fault(method="GET", has="/some/", skip=3, times=2, cut_answer=100))
    proxy.fail(Fault(method="GET", has="/some/", skip=3, times=2, lose_request=True))
    proxy.fail(Fault(method="GET", has="/some/17", status=403, code="AccessDenied"))
    found = dict(vault.read_many(there, 5000))
    assert isinstance(found.pop("some/17"), VaultDenied)
    del there["some/17"]
    assert found == there


def test_without_the_right_to_delete_backups_go_on(vault: S3Vault, proxy: FaultyS3) -> None:
    proxy.fail(Fault(method="DELETE", status=403, code="AccessDenied"))
    store(vault, "hosts/a/x", b"x")
    vault.put_new("hosts/a/manifest.json", b"{}")
    assert vault.exclusive() in {True, False}
    with pytest.raises(VaultDenied, match="let these credentials delete objects") as caught:
        vault.delete("hosts/a/x")
    assert "s3:DeleteObject" in caught.value.next_step
    assert "hosts/a/x" in keys(vault)


def test_who_may_only_write_and_list_can_back_up(vault: S3Vault, proxy: FaultyS3) -> None:
    proxy.fail(Fault(method="GET", when=lambda asked: "list-type" not in asked.path, status=403, code="AccessDenied"))
    proxy.fail(Fault(method="HEAD", status=403))
    vault.put_new("a", b"x")
    store(vault, "b", b"x")
    with pytest.raises(AlreadyExists):
        vault.put_new("a", b"y")
    assert keys(vault) == ["a", "b"]
    assert vault.look().note.startswith(f"{vault.where} does not let these credentials ask for versioning; ")


@pytest.mark.parametrize("use", [use for use in USES if use != "clean_leftovers"])
def test_a_bucket_that_is_gone(moto_server: S3Server, use: str) -> None:
    vault = moto_server.vault("never-made")
    with pytest.raises(VaultError) as caught:
        USES[use](vault)
    if use != "locked_until":  # an answer to HEAD does not say what is not there
        assert caught.value.sentence == "the bucket of s3://never-made/some/prefix is not there"
        assert isinstance(caught.value, VaultGone)


FAULTS = [
    (403, "AccessDenied", VaultDenied, "does not let these credentials list objects"),
    (403, "InvalidAccessKeyId", VaultGone, "does not know the access key"),
    (403, "SignatureDoesNotMatch", VaultGone, "does not accept the secret key"),
    (400, "ExpiredToken", VaultGone, "have expired"),
    (403, "RequestTimeTooSkewed", VaultGone, "the clock of this machine is wrong, by 2 days"),
    (507, "XMinioStorageFull", VaultFull, "no room left"),
    (403, "QuotaExceeded", VaultFull, "no room left"),
    (403, "InvalidObjectState", VaultError, "is archived"),
    (400, "EntityTooLarge", VaultError, "in one piece"),
    (400, "InvalidStorageClass", VaultError, "storage class"),
    (400, "KMS.DisabledException", VaultDenied, "the encryption key"),
    (301, "PermanentRedirect", VaultGone, "in another region"),
    (418, "Teapot", VaultError, "Teapot"),
]


@pytest.mark.parametrize(("status", "code", "kind", "said"), FAULTS)
def test_each_fault_has_its_sentence(
    vault: S3Vault, proxy: FaultyS3, status: int, code: str, kind: type[VaultError], said: str
) -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(days=2), usegmt=True)
    secret = "AKIDONOTSHOW\x1b[2J"
    proxy.fail(Fault(status=status, code=code, message=f"key {secret}".replace("\x1b", ""), headers={"Date": then}))
    with pytest.raises(kind, match=said) as caught:
        keys(vault)
    assert type(caught.value) is kind
    assert caught.value.next_step
    assert "AKIDONOTSHOW" not in str(caught.value) + caught.value.next_step
    assert len(proxy.asked) == 1 or status == 301, "what cannot pass is not tried again"


@pytest.mark.parametrize("use", ["upload", "large upload", "put_new", "exclusive"])
def test_a_full_provider_is_said(vault: S3Vault, proxy: FaultyS3, use: str) -> None:
    full = Fault(method="PUT", status=507, code="InsufficientStorage")
    proxy.fail(full)
    proxy.fail(Fault(method="POST", has="uploads", status=507, code="InsufficientStorage"))
    with pytest.raises(VaultFull):
        USES[use](vault)
    assert keys(vault) == []
    proxy.faults.clear()
    USES[use](vault)


def in_region(name: str) -> Callable[[Asked], bool]:
    return lambda asked: f"/{name}/s3/" not in asked.headers.get("Authorization", "")


def test_another_region_is_followed(vault: S3Vault, proxy: FaultyS3) -> None:
    elsewhere = Fault(
        when=in_region("eu-central-1"),
        status=400,
        code="AuthorizationHeaderMalformed",
        more="<Region>eu-central-1</Region>",
    )
    proxy.fail(elsewhere)
    for number in range(4):
        store(vault, f"some/{number}", b"x")
    assert elsewhere.times == 999_999, "it was told once"
    assert len(dict(vault.read_many([f"some/{number}" for number in range(4)], 9))) == 4
    assert elsewhere.times == 999_999
    assert keys(vault) == [f"some/{number}" for number in range(4)]


def test_another_region_is_named(vault: S3Vault, proxy: FaultyS3) -> None:
    more = "<Region>eu-central-1</Region>"
    proxy.fail(Fault(status=400, code="AuthorizationHeaderMalformed", more=more))
    with pytest.raises(VaultGone, match="is in eu-central-1") as caught:
        keys(vault)
    assert caught.value.next_step == 'Set region = "eu-central-1" for the vault.'


def test_a_locked_object_and_a_bucket_without_locks(moto_server: S3Server) -> None:
    with FaultyS3(moto_server.endpoint_url) as proxy:
        vault = moto_server.vault(endpoint_url=proxy.endpoint_url, lock_days=3)
        proxy.fail(
            Fault(method="PUT", times=1, status=400, code="InvalidRequest", message="Bucket is missing Object Lock")
        )
        with pytest.raises(VaultError, match="has no Object Lock") as caught:
            store(vault, "a", b"x")
        assert "lock_days" in caught.value.next_step
        denied = "Access Denied because object protected by object lock."
        proxy.fail(Fault(method="DELETE", times=1, status=403, code="AccessDenied", message=denied))
        with pytest.raises(VaultDenied, match="under an Object Lock"):
            vault.delete("a")
        with FaultyS3(moto_server.endpoint_url) as other:
            far = moto_server.vault(endpoint_url=other.endpoint_url, lock_days=3, lock_mode="compliance")
            other.fail(Fault(method="POST", has="uploads", status=403, code="AccessDenied"))
            with pytest.raises(VaultDenied):
                store(far, "a", bytes(2 * MIB))
            assert other.asked[-1].headers["x-amz-object-lock-mode"] == "COMPLIANCE"
            assert "x-amz-object-lock-retain-until-date" in other.asked[-1].headers


def test_a_bucket_that_asks_for_md5_gets_it(vault: S3Vault, proxy: FaultyS3) -> None:
    lacking = lambda asked: "Content-Md5" not in {name.title() for name in asked.headers}  # noqa: E731
    message = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock"
    fault = proxy.fail(Fault(method="PUT", when=lacking, status=400, code="InvalidRequest", message=message))
    store(vault, "a", b"x")
    before = fault.times
    store(vault, "b", b"x")
    assert fault.times == before, "asked for once"
    assert keys(vault) == ["a", "b"]


def test_nobody_there(rclone_server: S3Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    vault = rclone_server.vault(endpoint_url=f"http://127.0.0.1:{port}")
    for attempt in (keys, lambda vault: list(vault.read_many(["a", "b"], 9)), lambda vault: vault.put_new("a", b"")):
        with pytest.raises(VaultGone, match="cannot be reached") as caught:
            attempt(vault)
        assert caught.value.next_step
    assert "cannot be reached" in vault.look().note


def test_over_tls(rclone_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, context = certificate(tmp_path)
    with FaultyS3(rclone_server.endpoint_url, context) as proxy:
        vault = rclone_server.vault(endpoint_url=proxy.endpoint_url)
        with pytest.raises(VaultGone, match="its certificate is not trusted") as caught:
            keys(vault)
        assert "AWS_CA_BUNDLE" in caught.value.next_step
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        vault = rclone_server.vault(vault._bucket.config.bucket, endpoint_url=proxy.endpoint_url)
        data = secrets.token_bytes(3 * MIB + 7)
        store(vault, "big", data)
        assert content(vault, "big") == data
        puts = [asked for asked in proxy.asked if asked.method == "PUT"]
        assert {asked.headers["X-Amz-Content-SHA256"] for asked in puts} == {"UNSIGNED-PAYLOAD"}
        assert all("Content-MD5" in asked.headers for asked in puts)
        for number in range(5):
            vault.put_new(f"some/{number}", b"%d" % number)
        found = dict(vault.read_many([f"some/{number}" for number in range(5)], 9))
        assert found == {f"some/{number}": b"%d" % number for number in range(5)}
        vault.close()


def test_http_where_tls_is_expected(rclone_server: S3Server) -> None:
    vault = rclone_server.vault(endpoint_url=rclone_server.endpoint_url.replace("http", "https"))
    with pytest.raises(VaultGone, match=r"TLS failed|was lost"):
        keys(vault)


def test_something_that_is_no_s3(s3_keys: tuple[str, str], rclone_server: S3Server) -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = b"<html>Welcome \x1b[2J</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        vault = rclone_server.vault("abc", endpoint_url=f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(VaultError) as caught:
            keys(vault)
        assert "\x1b" not in caught.value.sentence
        server.shutdown()
