"""Keyed digests: equal for equal content, different for everything else, and nothing without a strong key."""

from __future__ import annotations

import hashlib
import io
import secrets
import tarfile
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.assets.secrets import tar_of
from backends.mastodon.fingerprint import DigestKey, changes, digest_key, fingerprint, key_digests
from backends.mastodon.host_files import FileState, HostFile
from backends.model import Secret

BASE = secrets.token_hex(64)


def environment(**values: str) -> dict[str, Secret]:
    return {name: Secret(value) for name, value in values.items()}


def key(base: str = BASE) -> DigestKey:
    found = digest_key(environment(SECRET_KEY_BASE=base))
    assert found is not None
    return found


def file(path: str = "/x/.env.production", content: bytes = b"A=1\n", mode: int = 0o600) -> HostFile:
    return HostFile(path=path, state=FileState.READ, content=content, mode=mode, bytes=len(content), owner="mastodon")


def test_the_key_comes_from_secret_key_base() -> None:
    assert key().source == "SECRET_KEY_BASE"
    assert key().key != key(secrets.token_hex(64)).key
    assert BASE not in repr(key())
    assert key().key.reveal() not in repr(key())


def test_without_it_the_next_strong_secret_takes_its_place() -> None:
    strong = secrets.token_hex(16)
    found = digest_key(
        environment(SECRET_KEY_BASE="changeme", ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY=strong, DB_PASS=BASE)
    )
    assert found is not None
    assert found.source == "ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY"


def test_without_a_strong_secret_there_is_no_digest() -> None:
    assert digest_key({}) is None
    assert digest_key(environment(SECRET_KEY_BASE="a" * 128, DB_PASS=BASE)) is None
    assert digest_key(environment(SECRET_KEY_BASE="$(cat /run/secrets/key) and more words")) is None
    assert digest_key(environment(SECRET_KEY_BASE=BASE), computed={"SECRET_KEY_BASE"}) is None


def test_equal_content_gives_the_same_in_any_order() -> None:
    one, two = file(), file("/x/.env", b"B=2")
    assert fingerprint(key(), [one, two]) == fingerprint(key(), [two, one])


@pytest.mark.parametrize(
    "changed",
    [
        replace(file(), path="/y/.env.production"),
        replace(file(), content=b"A=2\n"),
        replace(file(), mode=0o644),
        replace(file(), owner="root"),
    ],
)
def test_every_difference_shows(changed: HostFile) -> None:
    assert fingerprint(key(), [file()]) != fingerprint(key(), [changed])


def test_what_stands_between_fields_cannot_be_moved() -> None:
    assert fingerprint(key(), [file("/ab", b"c")]) != fingerprint(key(), [file("/a", b"bc")])


def test_another_secret_key_base_gives_another_digest() -> None:
    assert fingerprint(key(), [file()]) != fingerprint(key(secrets.token_hex(64)), [file()])


def test_a_digest_is_no_plain_digest() -> None:
    digest = key_digests(key(), environment(DB_PASS="hunter2"))["DB_PASS"]
    assert digest not in {hashlib.sha256(text).hexdigest() for text in (b"hunter2", b"DB_PASS=hunter2")}


def test_changed_names() -> None:
    before = key_digests(key(), environment(A="1", B="2", C="3"))
    after = key_digests(key(), environment(A="1", B="x", D="3"))
    assert changes(before, after) == ("B", "C", "D")


@given(st.dictionaries(st.text(min_size=1), st.text()), st.dictionaries(st.text(min_size=1), st.text()))
def test_changes_are_what_differs(before: dict[str, str], after: dict[str, str]) -> None:
    found = changes(key_digests(key(), environment(**before)), key_digests(key(), environment(**after)))
    assert set(found) == {name for name in {*before, *after} if before.get(name) != after.get(name)}


_CONTENT = st.binary(max_size=50)
_PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=120).map(
    lambda x: f"/e/{x}x"
)


@given(st.dictionaries(_PATHS, _CONTENT, max_size=5), st.integers(0, 0o7777))
def test_a_tar_gives_back_what_was_put_in(contents: dict[str, bytes], mode: int) -> None:
    files = [file(path, content, mode) for path, content in contents.items() if "/." not in path and "//" not in path]
    with tarfile.open(fileobj=io.BytesIO(tar_of(files))) as tar:
        for each, member in zip(files, tar.getmembers(), strict=True):
            stored = tar.extractfile(member)
            assert stored is not None
            assert (f"/{member.name}", stored.read(), member.mode) == (each.path.rstrip("/"), each.content, mode)
