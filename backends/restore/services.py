"""Mastodon's services around a restore: stopped for the swap, started, asked for health; the pair check; feeds."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from backends.model import Asset
from backends.restore import feeds
from backends.restore.base import Action, Target, Work
from backends.restore.health import Address
from backends.restore.pair_step import prove
from backends.restore.plan import Look, Phase, RestoreRequest, StepInfo
from backends.restore.services_look import look
from backends.restore.services_program import place_from, run
from backends.restore.services_run import Services
from backends.restore.services_units import Service, from_json
from backends.restore.source import Source
from backends.untrusted import clean


class ServicesPart:
    """Web, streaming, Sidekiq, and what is done with Mastodon's own programs."""

    asset: ClassVar[Asset | None] = None

    def look(self, request: RestoreRequest, target: Target, sources: Mapping[Asset, Source]) -> Look:
        """See the contract."""
        return look(request, target, sources)

    def actions(self, request: RestoreRequest, facts: Mapping[str, Any]) -> Sequence[Action]:
        """Prove the pair; stop; migrate; start; ask; Sidekiq; feeds."""
        known = dict(facts)
        made = [Action(info=_pair_info(known), do=lambda work: prove(work, known))] if known.get("pair") else []
        if known.get("services"):
            made += _around(known)
        if known.get("migrate"):
            made.append(Action(info=_migrate_info(known), do=lambda work: _migrate(work, known)))
        if known.get("feeds"):
            made.append(Action(info=_feeds_info(known), do=lambda work: feeds.build(work, known)))
        return sorted(made, key=lambda action: action.info.phase)


def _around(facts: Mapping[str, Any]) -> list[Action]:
    services = Services(facts)
    every = from_json(facts["services"])
    wanted = [each for each in every if each.id in facts["start"]]
    running = [each for each in every if each.up]
    stop = Action(
        info=_info(
            "stop",
            Phase.STOP,
            "stop",
            f"{_names(running)}; Sidekiq first, while the site is up still" if running else "nothing runs now",
            [_systemctl("stop", group) for group in _split(running)],
            2.0,
        ),
        do=services.stop,
        undo=services.start_again,
    )
    site = [each for each in wanted if each.role != "sidekiq"]
    start = Action(
        info=_info("start", Phase.START, "start", _names(site), [_systemctl("start", site)] if site else [], 1.0),
        do=services.start,
        undo=services.stop_again,
    )
    asked = [address.shown for each in wanted for address in each.addresses]
    health = Action(
        info=_info(
            "health",
            Phase.HEALTH,
            "ask for health",
            f"{' and '.join(asked)} must answer OK" if asked else "nothing that answers is started",
            [_curl(each, str(facts["domain"])) for service in wanted for each in service.addresses],
            15.0,
        ),
        do=services.health,
    )
    last = [each for each in wanted if each.role == "sidekiq"]
    sidekiq = Action(
        info=_info("sidekiq", Phase.HEALTH, "start Sidekiq", _names(last), [_systemctl("start", last)], 1.0),
        do=services.sidekiq,
        undo=services.stop_sidekiq,
    )
    return [stop, start, *([health] if asked else []), *([sidekiq] if last else [])]


def _curl(address: Address, domain: str) -> str:
    """The question as it can be typed."""
    where = ["--unix-socket", address.unix, f"http://localhost{address.path}"] if address.unix else [address.shown]
    return clean(shlex.join(["curl", "-H", f"Host: {domain}", "-H", "X-Forwarded-Proto: https", *where]))


def _migrate(work: Work, facts: Mapping[str, Any]) -> None:
    """Bring the restored database to the schema of the code that will serve it."""
    work.job.step("rails db:migrate")
    run(work, place_from(facts["program"]), "bin/rails", "db:migrate", env=facts["migrate_env"])


def _pair_info(facts: Mapping[str, Any]) -> StepInfo:
    return StepInfo(
        id="secrets.pair",
        # A damaged copy of the settings is then tried in the next vault.
        asset=Asset.SECRETS if facts["pair_secrets"] else Asset.DATABASE,
        phase=Phase.PROVE,
        name="prove the pair",
        what="the secrets that will serve the restored database must open an encrypted value of it",
        commands=("SELECT private_key FROM keypairs … LIMIT 3; SELECT otp_secret FROM users … LIMIT 3",),
        seconds=2.0,
    )


def _migrate_info(facts: Mapping[str, Any]) -> StepInfo:
    place = place_from(facts["program"])
    set_ = [f"{name}={value}" for name, value in facts["migrate_env"].items()]
    return _info(
        "migrate",
        Phase.SWAP,
        "migrate",
        "the code on the target is newer than the dump: its migrations run",
        [place.shown("env", *set_, "bin/rails", "db:migrate") if set_ else place.shown("bin/rails", "db:migrate")],
        None,
    )


def _feeds_info(facts: Mapping[str, Any]) -> StepInfo:
    return StepInfo(
        id="feeds.build",
        asset=Asset.REDIS,
        phase=Phase.AFTER,
        name="build feeds",
        what="home and list feeds of active users, from the database; the site is up",
        commands=(place_from(facts["program"]).shown(*(str(word) for word in facts["feeds"])),),
    )


def _info(verb: str, phase: Phase, name: str, what: str, commands: Sequence[str], seconds: float | None) -> StepInfo:
    return StepInfo(
        id=f"services.{verb}",
        asset=None,
        phase=phase,
        name=name,
        what=what,
        commands=tuple(commands),
        seconds=seconds,
    )


def _names(services: Sequence[Service]) -> str:
    return ", ".join(each.id.removesuffix(".service") for each in services)


def _split(services: Sequence[Service]) -> list[list[Service]]:
    chosen: Callable[[bool], list[Service]] = lambda last: [  # noqa: E731
        each for each in services if (each.role == "sidekiq") is last
    ]
    return [group for group in (chosen(True), chosen(False)) if group]


def _systemctl(verb: str, services: Sequence[Service]) -> str:
    return " ".join(("systemctl", verb, *(each.id.removesuffix(".service") for each in services)))


PART = ServicesPart()
