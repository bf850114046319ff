"""What every kind of vault keeps to. A new kind joins by one line in `KINDS`, and a server by its fixtures."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.errors import AlreadyExists, NotFound, VaultError, VaultFormatTooNew
from backends.vault.base import Vault
from backends.vault.directory import DirectoryVault
from backends.vault.format import KEY, README, prepare, read_format
from tests.contract.append_only import AppendOnlyVault
from tests.servers.s3 import moto_server, rclone_server, s3_keys
from tests.servers.sftp import sftp_vault

__all__ = ["moto_server", "rclone_server", "s3_keys"]
Make = Callable[[pytest.FixtureRequest, Path], Vault]
KINDS: dict[str, Make] = {
    "directory": lambda request, place: DirectoryVault("v", place / "vault"),
    "s3-moto": lambda request, place: request.getfixturevalue("moto_server").vault(),
    "s3-rclone": lambda request, place: request.getfixturevalue("rclone_server").vault(),
    "sftp": lambda request, place: sftp_vault(place),
}
"""By name: makes an empty vault. Servers are fixtures, which `request` gets by name."""
BUCKETS = frozenset({"s3-moto", "s3-rclone"})
"""Those that answer over HTTP: they get fewer examples and turns."""
CLASSES = sorted(set(KINDS) - {"s3-moto"})
"""One of each class, for what does not depend on the server."""
PARTS = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,8}", fullmatch=True)


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def vault(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vault]:
    made = KINDS[kind](request, tmp_path)
    yield made
    if kind in BUCKETS:  # others share a connection
        made.close()


def upload(vault: Vault, key: str, data: bytes) -> None:
    with vault.open_upload(key) as writing:
        writing.write(data[:10])
        writing.write(data[10:])
        writing.commit()


def get(vault: Vault, key: str) -> bytes:
    with vault.read(key) as stored:
        return stored.read()


def keys(vault: Vault, prefix: str = "") -> list[str]:
    return [found.key for found in vault.list(prefix)]


def test_what_is_written_is_read_back(vault: Vault) -> None:
    data = secrets.token_bytes(300_000)
    before = datetime.now(UTC) - timedelta(seconds=5)
    upload(vault, "hosts/a/b", data)
    vault.put_new("hosts/a/c.json", b"{}")
    assert get(vault, "hosts/a/b") == data
    assert get(vault, "hosts/a/c.json") == b"{}"
    first, second = vault.list()
    assert (first.key, first.bytes) == ("hosts/a/b", 300_000)
    assert (second.key, second.bytes) == ("hosts/a/c.json", 2)
    assert before < first.modified_at <= datetime.now(UTC) + timedelta(seconds=5)


def test_an_empty_vault_lists_nothing(vault: Vault) -> None:
    assert keys(vault) == []
    assert keys(vault, "hosts/nobody/") == []
    with pytest.raises(NotFound):
        vault.read("hosts/a")


def test_an_upload_is_not_there_before_its_commit(vault: Vault) -> None:
    writing = vault.open_upload("hosts/a/b")
    writing.write(b"x" * 100_000)
    assert keys(vault) == []
    with pytest.raises(NotFound):
        vault.read("hosts/a/b")
    writing.commit()
    writing.abort()
    assert keys(vault) == ["hosts/a/b"]


def test_an_aborted_upload_leaves_nothing(vault: Vault) -> None:
    writing = vault.open_upload("hosts/a/b")
    writing.write(b"x")
    writing.abort()
    writing.abort()
    assert keys(vault) == []
    assert vault.clean_leftovers(datetime.now(UTC) + timedelta(days=1)) == 0


def test_put_new_never_replaces(vault: Vault) -> None:
    vault.put_new("a", b"first")
    with pytest.raises(AlreadyExists):
        vault.put_new("a", b"second")
    assert get(vault, "a") == b"first"
    assert keys(vault) == ["a"]


def test_an_upload_replaces(vault: Vault) -> None:
    vault.put_new("a", b"first")
    upload(vault, "a", b"second")
    assert get(vault, "a") == b"second"


def test_only_one_of_many_puts_wins(vault: Vault) -> None:
    outcomes: list[str] = []

    def put(number: int) -> None:
        try:
            vault.put_new("race/one", b"%d" % number)
            outcomes.append("won")
        except AlreadyExists:
            outcomes.append("lost")

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if vault.exclusive():
        assert sorted(outcomes) == ["lost"] * 7 + ["won"]
    else:
        assert "won" in outcomes
        assert len(outcomes) == 8
    there = get(vault, "race/one")
    assert there in {b"%d" % number for number in range(8)}
    with pytest.raises(AlreadyExists):
        vault.put_new("race/one", b"later")
    assert get(vault, "race/one") == there


def test_deleting_twice_is_no_error(vault: Vault) -> None:
    vault.put_new("a/b/c", b"x")
    vault.put_new("a/d", b"x")
    vault.delete("a/b/c")
    vault.delete("a/b/c")
    vault.delete("nothing/at/all")
    assert keys(vault) == ["a/d"]
    vault.put_new("a/b/c", b"again")
    assert get(vault, "a/b/c") == b"again"


def test_listings_are_in_key_order(vault: Vault, kind: str) -> None:
    @settings(max_examples={"directory": 40, "sftp": 15}.get(kind, 4), deadline=None)
    @given(st.sets(st.lists(PARTS, min_size=1, max_size=3).map("/".join), max_size=12), PARTS)
    def listed(names: set[str], prefix: str) -> None:
        # a key cannot be an object and the directory of another one
        wanted = {name for name in names if not any(other.startswith(name + "/") for other in names)}
        for key in keys(vault):
            vault.delete(key)
        for name in wanted:
            upload(vault, name, b"")
        assert keys(vault) == sorted(wanted)
        assert keys(vault, prefix) == sorted(name for name in wanted if name.startswith(prefix))
        assert keys(vault, prefix + "/") == sorted(name for name in wanted if name.startswith(prefix + "/"))

    listed()


def test_names_that_sort_like_directories_are_in_key_order(vault: Vault) -> None:
    wanted = ["a-b/x", "a.b", "a/x", "a0", "ab", "b/c-d/e", "b/c/e", "b/c0"]
    for name in reversed(wanted):
        vault.put_new(name, b"")
    assert keys(vault) == sorted(wanted) == wanted
    assert keys(vault, "a") == wanted[:5]
    assert keys(vault, "b/c/") == ["b/c/e"]


def test_many_are_read_at_once(vault: Vault) -> None:
    there = {f"some/{number}.json": b"%d" % number * number for number in range(20)}
    for key, data in there.items():
        upload(vault, key, data)
    found = dict(vault.read_many([*there, "some/absent.json", "nothing/at/all"], 9))
    for lacking in ("some/absent.json", "nothing/at/all"):
        assert isinstance(found.pop(lacking), NotFound)
    assert found == {key: data[:10] for key, data in there.items()}
    assert list(vault.read_many([], 9)) == []
    bad = dict(vault.read_many(["some/1.json", "../a", "some/2.json"], 9))
    assert isinstance(bad["../a"], VaultError)
    assert bad["some/2.json"] == there["some/2.json"]
    assert dict(vault.read_many(["absent"], 9)).keys() == {"absent"}


def test_settings_can_be_asked_for(vault: Vault) -> None:
    vault.put_new("a", b"x")
    assert vault.locked_until("a") is None
    assert not vault.look().note
    assert vault.exclusive() in {True, False}
    assert vault.free_bytes() is None or vault.free_bytes()
    vault.close()
    assert get(vault, "a") == b"x"


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "a//b", "../a", "a/../b", "a/..", ".", ".hidden", "a/.b", "/etc/passwd", "a\0b", "a b", "a\nb", "ä"),
        *("a/" + "b" * 300, "/".join(["abcdefgh"] * 200)),
    ],
)
def test_a_key_never_leads_out(vault: Vault, key: str) -> None:
    for attempt in (vault.open_upload, vault.read, vault.delete, lambda bad: vault.put_new(bad, b"x")):
        with pytest.raises(VaultError):
            attempt(key)
    assert keys(vault) == []


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("prefix", ["../", "/", "a/../", "..", "hosts/./", "\0", "x\ny/"])
def test_a_prefix_never_leads_out(vault: Vault, prefix: str) -> None:
    vault.put_new("a/b", b"x")
    assert keys(vault, prefix) == []


def test_many_writers_and_deleters_share_a_directory(vault: Vault, kind: str) -> None:
    """One removes the directory that it emptied while another one makes a file in it."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(5 if kind in BUCKETS else 30):
                upload(vault, f"shared/deep/{number}-{turn}", b"x" * 20)
                vault.delete(f"shared/deep/{number}-{turn}")
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert keys(vault) == []


def test_prepare_is_done_once(vault: Vault) -> None:
    prepare(vault, ["age1a"])
    first = get(vault, KEY)
    prepare(vault, ["age1a"])
    assert get(vault, KEY) == first
    assert b"pg_restore" in get(vault, README)
    known = read_format(vault)
    assert known is not None
    assert known.recipients == ("age1a",)
    prepare(vault, ["age1a", "age1b"])
    again = read_format(vault)
    assert again is not None
    assert (again.id, again.created) == (known.id, known.created)
    assert again.recipients == ("age1a", "age1b")


def test_new_recipients_and_credentials_that_may_only_add(vault: Vault) -> None:
    prepare(vault, ["age1a"])
    before = get(vault, KEY)
    prepare(AppendOnlyVault(vault), ["age1b"])
    assert get(vault, KEY) == before


def test_many_prepare_at_once(vault: Vault) -> None:
    threads = [threading.Thread(target=prepare, args=(vault, ["age1a"])) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_format(vault) is not None
    assert keys(vault) == [README, KEY]


def test_a_newer_format_is_refused(vault: Vault) -> None:
    vault.put_new(KEY, b'{"format": 2, "whatever": []}')
    with pytest.raises(VaultFormatTooNew, match="newer Mastovault"):
        prepare(vault, ["age1a"])
    with pytest.raises(VaultFormatTooNew, match="newer Mastovault"):
        read_format(vault)
    assert keys(vault) == [KEY]


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b'{"format": "1"}', b'{"format": 1}', b"\xff", b"[" * 100_000, b"x" * 300_000]
)
def test_a_format_that_is_none_is_said(vault: Vault, data: bytes) -> None:
    vault.put_new(KEY, data)
    with pytest.raises(VaultError) as caught:
        read_format(vault)
    assert "cannot be understood" in caught.value.sentence
