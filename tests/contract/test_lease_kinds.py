"""Leases over every kind of vault: one that several want at once is held by one, then by the next."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends.errors import LeaseLost, Locked
from backends.vault.base import Vault
from backends.vault.lease import Lease, lease_holder, take_lease
from tests.contract.test_vault import BUCKETS, KINDS
from tests.servers.s3 import moto_server, rclone_server, s3_keys

__all__ = ["moto_server", "rclone_server", "s3_keys"]
NAME = "social/media/write"
MADE = "social/media/20261122T140211Z-1f0a9c3e"


@pytest.fixture(params=sorted(KINDS))
def vault(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vault]:
    made = KINDS[request.param](request, tmp_path)
    yield made
    if request.param in BUCKETS:
        made.close()


def test_one_after_the_other(vault: Vault) -> None:
    first = take_lease(vault, NAME, run="r1", doing="backed up")
    first.check()
    with pytest.raises(Locked, match="run r1"):
        take_lease(vault, NAME, run="r2", doing="pruned")
    found = lease_holder(vault, NAME)
    assert found is not None
    assert found.run == "r1"
    first.renew()
    first.check()
    assert abs(first.now() - datetime.now(UTC)) < timedelta(seconds=5)
    first.release([MADE])
    assert lease_holder(vault, NAME) is None
    second = take_lease(vault, NAME, run="r2", doing="pruned")
    assert second.previous == (MADE,)
    second.check()
    with pytest.raises(LeaseLost):
        first.check()
    second.release()


def test_several_at_once(vault: Vault) -> None:
    """Each holds it for a moment; two at a time never."""
    inside: list[str] = []
    most: list[int] = []
    errors: list[BaseException] = []

    def work(run: str) -> None:
        try:
            lease: Lease = take_lease(vault, NAME, run=run, doing="backed up", wait=60)
            inside.append(run)
            most.append(len(inside))
            lease.check()
            inside.remove(run)
            lease.release()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"r{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert most == [1, 1, 1]
