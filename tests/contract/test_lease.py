"""One lease: taking, keeping, losing and releasing it, on good days and on bad ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backends.errors import LeaseLost, Locked, VaultDenied, VaultError, VaultFull
from backends.vault import lease_owner, lease_record
from backends.vault.base import Vault
from backends.vault.directory import DirectoryVault
from backends.vault.lease import Lease, lease_holder, take_lease
from backends.vault.lease_claim import Claim
from backends.vault.lease_owner import LIVE, Owner, this_process
from backends.vault.lease_place import Place
from backends.vault.lease_record import new_record
from tests.contract.append_only import AppendOnlyVault
from tests.contract.faulty import ANY, FaultyVault
from tests.contract.model_vault import ModelVault
from tests.contract.passing import PassingVault
from tests.contract.skewed import SkewedVault

NAME = "social/media/write"
TTL = timedelta(seconds=60)
DAYS = timedelta(days=2)
MADE = "social/media/20261122T140211Z-1f0a9c3e"


@dataclass
class Hands:
    """A clock that is moved by hand."""

    seconds: float = 0.0
    tokens: int = 0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def chance(self) -> float:
        return 0.5

    def token(self) -> str:
        self.tokens += 1
        return f"{self.tokens:016x}"


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture(params=[True, False], ids=["slots", "claims"])
def model(request: pytest.FixtureRequest, hands: Hands) -> ModelVault:
    return ModelVault(hands.now, atomic=request.param)


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    LIVE.clear()


def take(vault: Vault, hands: Hands, run: str = "r1", *, wait: float = 0.0) -> Lease:
    return take_lease(vault, NAME, run=run, doing="backed up", ttl=TTL, wait=wait, ticker=hands)


def elsewhere(monkeypatch: pytest.MonkeyPatch, name: str = "other") -> None:
    """From here on this process is one of another machine."""
    owner = Owner(user="ann", host=name, machine=name, pid=7, started=7)
    monkeypatch.setattr(lease_owner, "this_process", lambda: owner)
    monkeypatch.setattr(lease_record, "this_process", lambda: owner)


def test_the_second_is_told_who_and_since_when(model: ModelVault, hands: Hands) -> None:
    first = take(model, hands)
    with pytest.raises(Locked) as caught:
        take(model, hands, "r2")
    sentence = caught.value.sentence
    assert sentence.startswith("social/media is being backed up by ")
    for part in (this_process().user, this_process().host, f"pid {os.getpid()}", "run r1", "since 20", "vault model"):
        assert part in sentence
    assert caught.value.exit_code == 11
    found = lease_holder(model, NAME)
    assert found is not None
    assert (found.run, found.sentence) == ("r1", sentence)
    first.check()
    first.release()
    assert lease_holder(model, NAME) is None
    take(model, hands, "r2").check()


def test_other_names_do_not_wait(model: ModelVault, hands: Hands) -> None:
    take(model, hands)
    for name in ("social/media/sync", "social/database/write", "other/media/write"):
        take_lease(model, name, run="r2", doing="backed up", ttl=TTL, ticker=hands).check()


def test_it_tells_the_next_what_was_written(model: ModelVault, hands: Hands) -> None:
    first = take(model, hands)
    assert first.previous == ()
    first.release([MADE])
    second = take(model, hands)
    assert second.previous == (MADE,)
    second.wrote("social/media/20261123T140211Z-1f0a9c3e")
    second.renew()
    elsewhen = MADE.replace("1f0a", "2f0a")
    second.release([elsewhen])
    assert take(model, hands).previous == (MADE, "social/media/20261123T140211Z-1f0a9c3e", elsewhen)


def test_a_run_elsewhere_that_died_holds_it_until_it_expires(
    model: ModelVault, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = take(model, hands)
    dead.wrote(MADE)
    dead.renew()
    elsewhere(monkeypatch)
    hands.seconds += 59
    with pytest.raises(Locked):
        take(model, hands, "r2")
    hands.seconds += 8
    second = take(model, hands, "r2")
    assert second.previous == (MADE,)
    second.check()
    with pytest.raises(LeaseLost, match="took over"):
        dead.check()
    with pytest.raises(LeaseLost):
        dead.renew()
    dead.release()
    second.check()
    second.renew()


def test_waiting_ends_with_the_expiry(model: ModelVault, hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    take(model, hands)
    elsewhere(monkeypatch)
    take(model, hands, "r2", wait=120).check()
    assert 60 < hands.seconds < 80


def test_one_that_slept_goes_on_when_nobody_came(model: ModelVault, hands: Hands) -> None:
    lease = take(model, hands)
    hands.seconds += 3600
    lease.check()
    lease.renew()
    lease.check()


def test_one_that_slept_notices_who_came_and_went(
    model: ModelVault, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = take(model, hands)
    elsewhere(monkeypatch)
    hands.seconds += 100
    for _ in range(3):
        take(model, hands, "r2").release()
        hands.seconds += 4000
    for _ in range(2):
        with pytest.raises(LeaseLost):
            sleeper.check()


def test_what_cannot_be_renewed_in_time_is_lost(model: ModelVault, hands: Hands) -> None:
    vault = FaultyVault(model, ANY, 0, for_good=True)
    lease = take(vault, hands)
    vault.broken = True
    for _ in range(5):
        hands.seconds += 10
        with pytest.raises(VaultError, match="the vault is gone"):
            lease.renew()
    with pytest.raises(VaultError, match="the vault is gone"):
        lease.check()
    hands.seconds += 11
    with pytest.raises(LeaseLost, match="could not be renewed in time"):
        lease.check()
    vault.broken = False
    with pytest.raises(LeaseLost, match="in time"):
        lease.check()
    lease.release()
    take(vault, hands, "r2").check()


def test_a_renewal_whose_answer_was_lost_is_one(model: ModelVault, hands: Hands) -> None:
    lease = take(FaultyVault(model, "put_new", 3 if model.atomic else 4, after=True), hands)
    lease.renew()
    for _ in range(4):
        with suppress(VaultError):
            lease.renew()
        lease.check()
    lease.release()
    assert lease_holder(model, NAME) is None


def test_two_that_confirm_at_once_both_try_again(hands: Hands) -> None:
    model = ModelVault(hands.now, atomic=False)
    first = Claim(Place(model, NAME, hands), new_record("f" * 16, run="r1", doing="x", ttl=TTL))

    class Meeting(PassingVault):
        met = 0

        def put_new(self, key: str, data: bytes) -> None:
            super().put_new(key, data)
            if "/held/" in key and not self.met:
                self.met = 1
                first._put(first.place.held("f" * 16, 1), replace(first.record, state="held"))
            elif "/claims/" in key and self.met == 1:
                self.met = 2
                model.delete(first.place.held("f" * 16, 1))

    LIVE.add("f" * 16)
    take(Meeting(model), hands).check()


def steps(vault: Vault, hands: Hands) -> None:
    """All that a run does with a lease."""
    lease = take(vault, hands)
    try:
        lease.check()
        lease.renew()
        lease.check()
    finally:
        lease.release([MADE])


@pytest.mark.parametrize("atomic", [True, False], ids=["slots", "claims"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
def test_every_call_fails(hands: Hands, atomic: bool, after: bool, for_good: bool) -> None:
    """What a run of this process left behind stops nobody."""
    for nth in range(1, 60):
        model = ModelVault(hands.now, atomic=atomic)
        vault = FaultyVault(model, ANY, nth, after=after, for_good=for_good)
        error = failing(vault, hands)
        if not vault.broken:
            assert nth >= 10
            return
        assert not isinstance(error, LeaseLost)
        take(model, hands, "r2").check()
    raise AssertionError("never ran through")


@pytest.mark.parametrize("atomic", [True, False], ids=["slots", "claims"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_what_another_machine_left_expires(
    hands: Hands, atomic: bool, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for nth in range(1, 60):
        model = ModelVault(hands.now, atomic=atomic)
        vault = FaultyVault(model, ANY, nth, after=after, for_good=True)
        with monkeypatch.context() as patch:
            elsewhere(patch)
            failing(vault, hands)
        if not vault.broken:
            return
        take(model, hands, "r2", wait=80).check()
    raise AssertionError("never ran through")


def failing(vault: Vault, hands: Hands) -> VaultError | None:
    try:
        steps(vault, hands)
    except VaultError as error:
        return error
    return None


@pytest.mark.parametrize("replaces", [False, True])
def test_credentials_that_may_only_add(
    model: ModelVault, hands: Hands, replaces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = AppendOnlyVault(model, replaces=replaces)
    for _ in range(20):
        lease = take(vault, hands)
        lease.renew()
        lease.check()
        with pytest.raises(Locked):
            take(vault, hands, "r2")
        lease.check()
        lease.release()
    assert len(model.objects) < 200
    killed = take(vault, hands)
    elsewhere(monkeypatch)
    with pytest.raises(Locked):
        take(vault, hands, "r2")
    killed.check()
    hands.seconds += 70
    take(vault, hands, "r2").release()
    # somebody who may delete cleans up, once what is over is old enough
    hands.seconds += 20 * 60
    last = take(model, hands)
    last.renew()
    last.release()
    take(model, hands).release()
    assert len(model.objects) < 16


def test_a_full_vault_takes_a_lease(model: ModelVault, hands: Hands) -> None:
    """Or nobody could prune it."""

    class Full(PassingVault):
        def put_new(self, key: str, data: bytes) -> None:
            if len(model.objects) >= 8:
                raise VaultFull("no room left")
            super().put_new(key, data)

    vault = Full(model)
    for number in range(20):
        lease = take(vault, hands)
        lease.renew()
        lease.check()
        lease.release([f"social/media/20261122T140211Z-{number:08x}"])
    assert take(vault, hands).previous[-1].endswith("00000013")
    model.objects = {str(number): (b"", 0.0) for number in range(8)}
    with pytest.raises(VaultFull):
        take(vault, hands)


def test_credentials_that_may_not_write(model: ModelVault, hands: Hands) -> None:
    class Closed(PassingVault):
        def put_new(self, key: str, data: bytes) -> None:
            raise VaultDenied("these credentials may only read")

    with pytest.raises(VaultDenied):
        take(Closed(model), hands)
    assert model.objects == {}


@pytest.mark.parametrize("shift", [DAYS, -DAYS])
def test_the_vaults_clock_is_two_days_wrong(
    model: ModelVault, hands: Hands, shift: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = SkewedVault(model, shift)
    dead = take(vault, hands)
    hands.seconds += 10
    (first, *_) = vault.list()
    assert dead.now() == first.modified_at + timedelta(seconds=10) or not model.atomic
    elsewhere(monkeypatch)
    hands.seconds += 45
    with pytest.raises(Locked):
        take(vault, hands, "r2")
    hands.seconds += 15
    take(vault, hands, "r2").check()


@pytest.mark.parametrize("shift", [DAYS, -DAYS])
def test_a_machines_clock_is_two_days_wrong(
    model: ModelVault, hands: Hands, shift: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_record, "utc_now", lambda: datetime.now(UTC) + shift)
    take(model, hands)
    monkeypatch.undo()
    elsewhere(monkeypatch)
    hands.seconds += 55
    with pytest.raises(Locked):
        take(model, hands, "r2")
    hands.seconds += 15
    take(model, hands, "r2").check()


def test_a_vault_whose_clock_was_set_back_is_not_locked_for_days(
    model: ModelVault, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands.seconds = DAYS.total_seconds()
    take(model, hands)
    elsewhere(monkeypatch)
    hands.seconds = 0
    take(model, hands, "r2").check()


def test_both_ways_see_each_other(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same vault by two ways, of which only one has atomic puts: a directory that is an SFTP server's, too."""
    vault = ModelVault(hands.now, atomic=True)

    class Plain(PassingVault):
        def exclusive(self) -> bool:
            return False

    plain = Plain(vault)
    for first, second in ((vault, plain), (plain, vault)):
        with monkeypatch.context() as patch:
            lease = take(first, hands)
            elsewhere(patch)
            with pytest.raises(Locked):
                take(second, hands, "r2")
            lease.check()
            lease.release()
            other = take(second, hands, "r2")
            other.check()
            hands.seconds += 70
        other.renew()
        with pytest.raises(Locked):
            take(first, hands)
        hands.seconds += 70
        taken = take(first, hands)
        with pytest.raises(LeaseLost):
            other.check()
        taken.release()


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"\xff" * 99, b'{"format": 2}', b"x" * 100_000])
def test_somebody_elses_file_stops_nobody_for_longer(model: ModelVault, hands: Hands, data: bytes) -> None:
    prefix = f"leases/{NAME}/"
    for key in ("slots/000000000007.json", "claims/0000000000000000.json", "held/ffffffffffffffff-000001.json"):
        model.replace(prefix + key, data)
    for key in ("slots/x.json", "slots/7.json", "unknown", "held/1.json", "deep/er/still"):
        model.replace(prefix + key, data)
    with pytest.raises(Locked, match="worked on by another run"):
        take(model, hands)
    found = lease_holder(PassingVault(model), NAME)
    assert found is None or found.run == ""
    hands.seconds = timedelta(minutes=6).total_seconds()
    take(model, hands).check()


def test_numbers_that_have_run_out_are_said(hands: Hands) -> None:
    vault = ModelVault(hands.now, atomic=True)
    vault.replace(f"leases/{NAME}/slots/999999999999.json", b"")
    hands.seconds = 1000
    with pytest.raises(VaultError, match="run out"):
        take(vault, hands)


def test_the_requests_of_a_lease(hands: Hands) -> None:
    for atomic, most in ((True, 5), (False, 8)):
        vault = FaultyVault(ModelVault(hands.now, atomic=atomic), ANY, 0)
        take(vault, hands).release()
        vault.calls.clear()
        lease = take(vault, hands)
        assert len([call for call in vault.calls if call != "exclusive"]) <= most, vault.calls
        vault.calls.clear()
        lease.check()
        assert len(vault.calls) <= 2
        vault.calls.clear()
        lease.renew()
        assert len(vault.calls) <= 4, vault.calls


def test_a_real_lease_is_renewed_by_itself(tmp_path: Path) -> None:
    vault = DirectoryVault("v", tmp_path / "v")
    lease = take_lease(vault, NAME, run="r1", doing="backed up", ttl=timedelta(seconds=0.15))
    renewed = tmp_path / "v" / "leases" / NAME / "slots" / "000000000003.json"
    while not renewed.exists():
        lease.check()
    lease.check()
    lease.release()
    assert not LIVE


WORK = """
import sys, time
from pathlib import Path
from backends.vault.directory import DirectoryVault
from backends.vault.lease import take_lease
take_lease(DirectoryVault("v", Path(sys.argv[1])), "social/media/write", run="r1", doing="backed up")
print("taken", flush=True)
time.sleep(60)
"""


def test_a_killed_process_of_this_machine_holds_nothing(tmp_path: Path) -> None:
    vault = DirectoryVault("v", tmp_path)
    with subprocess.Popen([sys.executable, "-c", WORK, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"taken\n"
        with pytest.raises(Locked, match=rf"pid {process.pid}"):
            take_lease(vault, NAME, run="r2", doing="backed up")
        process.kill()
        process.wait()
    take_lease(vault, NAME, run="r2", doing="backed up").release()
