"""Stopping and starting Mastodon's units around a swap; each step may be called again after any cut."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backends.connection.base import Command, Connection
from backends.errors import AssetFailed, BecomeRefused, CommandFailed
from backends.restore.base import Work
from backends.restore.health import Address, Answer, ask
from backends.restore.services_units import UP, Service, from_json, states
from backends.untrusted import clean

STOPPED = "services.stopped"
"""The note that holds the units that ran when they were stopped."""
DOWN_SINCE, BACK_SINCE, DOWNTIME = "services.down_since", "services.back_since", "downtime_seconds"
HEALTH_SECONDS = 120.0
"""Puma on a small machine takes half a minute to load Mastodon."""
_UNSURE_SECONDS = 3.0
_SPARE = 30.0
_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
_LOOK_EVERY = 2.0


class Services:
    """The units of one restore, from the facts of its look."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._services = from_json(facts["services"])
        self._start = frozenset(str(each) for each in facts["start"])
        self._domain = str(facts["domain"])

    # --- there

    def stop(self, work: Work) -> None:
        """Stop what runs: Sidekiq first, while the site is up still; then the site.

        Raises:
            AssetFailed: some do not stop; they are named. The walk back starts the others again.
        """
        every = [service.id for service in self._services]
        now = states(work.connection, every)
        if work.memory.get(STOPPED) is None:
            work.memory.set(STOPPED, [name for name in every if now.get(name) in UP])
        for group in self._groups(lambda service: now.get(service.id) in UP):
            work.job.check_cancelled()
            site = any(service.role != "sidekiq" for service in group)
            if site and work.memory.get(DOWN_SINCE) is None:
                work.memory.set(DOWN_SINCE, time.time())
            self._stop(work, group)

    def start(self, work: Work) -> None:
        """Start web, streaming and what else ran, but not Sidekiq."""
        self._systemctl_start(work, [service for service in self._wanted(work) if service.role != "sidekiq"])
        _count_downtime(work)

    def sidekiq(self, work: Work) -> None:
        """Start Sidekiq, which delivers, mails and deletes: last."""
        self._systemctl_start(work, [service for service in self._wanted(work) if service.role == "sidekiq"])

    def health(self, work: Work) -> None:
        """Wait until web and streaming say that they are well.

        Raises:
            AssetFailed: one does not within `HEALTH_SECONDS`, with what its log says.
        """
        for service in self._wanted(work):
            for address in service.addresses:
                work.job.step(f"waiting for {service.role}")
                if not self._await(work, service, address):
                    work.job.log(f"{_short([service.id])} runs; {address.shown} does not answer, as before")
                    continue
                work.job.log(f"{address.shown} answers OK")
                if service.role == "web":
                    _count_downtime(work)

    # --- back

    def stop_again(self, work: Work) -> None:
        """On the way back: stop the site, for what it works on is about to be swapped back."""
        if work.memory.get(BACK_SINCE) is None:
            work.memory.set(BACK_SINCE, time.time())
        self._stop_running(work, sidekiq=False)

    def stop_sidekiq(self, work: Work) -> None:
        """On the way back: stop Sidekiq first."""
        self._stop_running(work, sidekiq=True)

    def start_again(self, work: Work) -> None:
        """On the way back: start what ran before."""
        ran = set(work.memory.get(STOPPED) or ())
        before = [service for service in self._services if service.id in ran]
        self._systemctl_start(work, [service for service in before if service.role != "sidekiq"])
        self._await_any(work, before)
        _count_downtime(work, BACK_SINCE if work.memory.get(BACK_SINCE) else DOWN_SINCE)
        self._systemctl_start(work, [service for service in before if service.role == "sidekiq"])

    def _wanted(self, work: Work) -> list[Service]:
        """What is to run afterwards: what ran, and what was down but should have been up."""
        wanted = self._start | set(work.memory.get(STOPPED) or ())
        return [service for service in self._services if service.id in wanted]

    def _groups(self, chosen: Any) -> list[list[Service]]:
        """Sidekiq, then the rest; without what is not chosen."""
        sidekiq = [service for service in self._services if service.role == "sidekiq" and chosen(service)]
        rest = [service for service in self._services if service.role != "sidekiq" and chosen(service)]
        return [group for group in (sidekiq, rest) if group]

    def _stop_running(self, work: Work, *, sidekiq: bool) -> None:
        now = states(work.connection, [service.id for service in self._services])
        for group in self._groups(lambda service: now.get(service.id) in UP):
            if all((service.role == "sidekiq") is sidekiq for service in group):
                self._stop(work, group)

    def _stop(self, work: Work, group: Sequence[Service]) -> None:
        names = [service.id for service in group]
        patience = max(service.stop_seconds for service in group) + _SPARE
        work.job.step(f"stopping {_short(names)}")
        said = _systemctl(work, "stop", names, patience)
        left = [name for name, state in states(work.connection, names).items() if state in UP]
        if left:
            why = f" ({said})" if said else ""
            verb = "does" if len(left) == 1 else "do"
            raise AssetFailed(
                f"{_short(left)} {verb} not stop on {work.connection.host}{why}",
                f"Look at `systemctl status {left[0]}`, end it by hand, and restore again.",
            )

    def _systemctl_start(self, work: Work, group: Sequence[Service]) -> None:
        names = [service.id for service in group]
        if not names:
            return
        work.job.step(f"starting {_short(names)}")
        # One that failed some times in a row would be refused.
        _quietly(work, "reset-failed", names)
        patience = max(service.stop_seconds for service in group) + _SPARE
        said = _systemctl(work, "start", names, patience)
        down = [name for name, state in states(work.connection, names).items() if state not in UP]
        if down:
            raise self._does_not_run(work, down, said)

    def _does_not_run(self, work: Work, down: Sequence[str], said: str) -> AssetFailed:
        line = journal(work, down[0]) or said
        verb = "does" if len(down) == 1 else "do"
        return AssetFailed(
            f"{_short(down)} {verb} not run on {work.connection.host}{f': {line}' if line else ''}",
            f"Look at `journalctl -u {down[0]}` there.",
        )

    def _await(self, work: Work, service: Service, address: Address) -> bool:
        """Wait until it is well; False for one that answers nowhere, as before, and runs."""
        began = time.monotonic()
        look, pause = began + _LOOK_EVERY, _PAUSE
        while not (answer := ask(work.connection, address, self._domain)).well:
            now = time.monotonic()
            unsure = not service.heard and not answer.status
            given_up = now >= began + (_UNSURE_SECONDS if unsure else HEALTH_SECONDS)
            if now >= look or given_up:
                look = now + _LOOK_EVERY
                if states(work.connection, [service.id]).get(service.id) not in UP:
                    raise self._does_not_run(work, [service.id], "")
            if given_up and unsure:
                return False
            if given_up:
                raise self._not_well(work, service, address, answer)
            work.job.check_cancelled()
            time.sleep(pause)
            pause = min(pause * 1.3, _LONGEST_PAUSE)
        return True

    def _not_well(self, work: Work, service: Service, address: Address, answer: Answer) -> AssetFailed:
        line = journal(work, service.id)
        return AssetFailed(
            f"{_short([service.id])} is not well after {HEALTH_SECONDS:.0f} s: {address.shown} {answer.shown}"
            + (f"; its log says: {line}" if line else ""),
            f"Look at `journalctl -u {service.id}` there.",
        )

    def _await_any(self, work: Work, services: Sequence[Service]) -> None:
        """Wait until the web answers at all: on the way back it may well be as broken as it was before."""
        until = time.monotonic() + _SPARE
        for service in services:
            for address in service.addresses if service.heard else ():
                while not ask(work.connection, address, self._domain).status:
                    if time.monotonic() > until:
                        work.job.log(f"{address.shown} does not answer yet")
                        return
                    time.sleep(_PAUSE)


def journal(work: Work, unit: str) -> str:
    """The last lines of a unit's log into the job's log, and the one that says most; empty without any."""
    command = Command(("journalctl", "-u", unit, "-n", "12", "-o", "cat", "--no-pager"), as_user=work.target.root)
    try:
        text = work.connection.run(command, timeout=20).stdout
    except (BecomeRefused, CommandFailed):
        return ""
    lines = [line.strip() for line in clean(text, 8000, lines=True).splitlines()]
    lines = [line for line in lines if line and not line.startswith("-- ")]
    for line in lines:
        work.job.log(f"{unit}: {line}")
    telling = [line for line in lines if "rror" in line or "denied" in line]
    # systemd's own words on a unit that ended say less than the program's last ones.
    own = [line for line in lines if not line.startswith((f"{unit}:", "Started ", "Stopped ", "Stopping "))]
    return clean((telling or own or lines or [""])[-1], 300)


def _systemctl(work: Work, verb: str, names: Sequence[str], patience: float) -> str:
    """Tell systemd; what it said when it refused. What came of it is looked at afterwards."""
    work.job.log(f"systemctl {verb} {' '.join(names)}")
    command = Command(("systemctl", verb, "--", *names), as_user=work.target.root, env={"LC_ALL": "C"})
    try:
        done = work.connection.run(command, timeout=patience)
    except CommandFailed:
        return f"systemctl {verb} did not end within {patience:.0f} s"
    said = clean(done.stderr, 600, lines=True).strip().splitlines()
    return said[0] if done.status != 0 and said else ""


def _quietly(work: Work, verb: str, names: Sequence[str]) -> None:
    command = Command(("systemctl", verb, "--", *names), as_user=work.target.root, env={"LC_ALL": "C"})
    work.connection.run(command, timeout=_SPARE)


def _count_downtime(work: Work, key: str = DOWN_SINCE) -> None:
    since = work.memory.get(key)
    if isinstance(since, int | float):
        work.memory.set(DOWNTIME, round(max(0.0, time.time() - since), 1))


def _short(names: Sequence[str]) -> str:
    return ", ".join(name.removesuffix(".service") for name in names)


def heard_now(connection: Connection, services: Sequence[Service], domain: str) -> list[tuple[Service, str, bool]]:
    """Each unit with whether it was heard, how it answers in words (empty for one that does not serve), and if well.

    Raises:
        ConnectionFailed: the connection is gone.
    """
    found = []
    for service in services:
        answers = [(address, ask(connection, address, domain)) for address in service.addresses if service.up]
        said = "; ".join(f"{at.shown} {'answers OK' if got.well else got.shown}" for at, got in answers)
        silent = bool(answers) and not any(got.status for _, got in answers)
        heard = replace(service, heard=not (silent and service.steady))
        found.append((heard, said, all(got.well for _, got in answers)))
    return found
