"""The look at Mastodon's services: what will stop, whether it may be stopped from here, what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from backends.connection.base import Command, sh
from backends.errors import BecomeRefused, CommandFailed, ConnectionFailed, MastovaultError
from backends.mastodon.look import look as look_around
from backends.model import Asset, Secret
from backends.restore import feeds
from backends.restore.base import Target
from backends.restore.database_code import judge_code, newest_migration
from backends.restore.pair_early import early_findings
from backends.restore.plan import Finding, Look, RestoreRequest
from backends.restore.secrets_target import serving_settings
from backends.restore.services_program import place_of
from backends.restore.services_run import heard_now
from backends.restore.services_units import Service, around, find_services, may_control, to_json
from backends.restore.source import Source
from backends.untrusted import clean

_ORDER = ("web", "streaming", "other", "sidekiq")
_PROGRAMS = ("psql", "redis-cli", "ffmpeg", "node", "nginx")
_PACKAGES = {"psql": "postgresql", "redis-cli": "redis-server", "node": "nodejs"}
_MISSING = r"""
PATH=$PATH:/usr/sbin:/sbin:/usr/local/bin
for program do command -v "$program" >/dev/null || printf 'mastovault-missing %s\n' "$program"; done
"""


def look(request: RestoreRequest, target: Target, sources: Mapping[Asset, Source]) -> Look:
    """Everything about the services, read-only. Raises `ConnectionFailed`."""
    if not {Asset.DATABASE, Asset.SECRETS, Asset.REDIS} & set(request.assets):
        return Look(untouched=("Mastodon's services: the site stays up",))
    facts: dict[str, object] = {}
    findings: list[Finding] = []
    try:
        if Asset.DATABASE in sources:
            facts |= {"pair": True, "pair_secrets": Asset.SECRETS in sources}
            findings += _early(target, sources)
        if target.bare:
            findings += _to_install(target, sources)
        else:
            more, found = _services(request, target, sources)
            facts |= more
            findings += found
    except (BecomeRefused, CommandFailed) as error:
        findings.append(_block(error.sentence, error.next_step))
    return Look(facts=facts, findings=tuple(findings))


def _services(
    request: RestoreRequest, target: Target, sources: Mapping[Asset, Source]
) -> tuple[dict[str, object], list[Finding]]:
    domain = target.installation.domain or _domain(target)
    asked = heard_now(target.connection, find_services(target), domain)
    asked.sort(key=lambda each: _ORDER.index(each[0].role))
    services = [service for service, *_ in asked]
    findings: list[Finding] = []
    fresh = not target.installation.secret_files
    start = [each for each in services if each.up or (each.enabled and (fresh or each.state == "failed"))]
    if not services:
        findings.append(
            _note(
                "no unit of systemd runs Mastodon there: nothing is stopped or started",
                "Stop Mastodon by hand before the restore, and start it afterwards.",
            )
        )
    else:
        findings += _states(services, start)
        findings += [_answers(*each) for each in asked if each[1]]
        refused = may_control(target, services)
        if refused is not None:
            findings.append(_block(refused.sentence, refused.next_step))
    for name in around(target):
        text = f"{name} runs something of Mastodon's on a schedule; it may run during the restore"
        findings.append(_note(text, "Keep it from running until the restore is done."))
    program = place_of(target, _programs(target))
    facts: dict[str, object] = {
        "services": to_json(services),
        "start": [each.id for each in start],
        "domain": domain,
        "program": program.to_json(),
        **_migration(target, sources),
    }
    if Asset.REDIS in request.assets:
        facts["feeds"] = list(feeds.words(request, target.installation.version))
    return facts, findings


def _answers(service: Service, said: str, well: bool) -> Finding:
    if well:
        return _ok(said)
    if service.heard:
        return _note(f"{said} now, before the restore", "")
    name = service.id.removesuffix(".service")
    text = f"{name} runs, but {said}: whether it is well afterwards cannot be asked there"
    return _note(text, f"Look at the site yourself after the restore (PORT, BIND and SOCKET of {name} are not found).")


def _states(services: list[Service], start: list[Service]) -> list[Finding]:
    findings = []
    asleep = [each.id.removesuffix(".service") for each in services if each not in start and each.enabled]
    if asleep:
        text = f"{', '.join(asleep)} {'do' if len(asleep) > 1 else 'does'} not run now, and will not be started"
        findings.append(_note(text, f"systemctl start {' '.join(asleep)}"))
    failed = [each.id.removesuffix(".service") for each in start if not each.up]
    if failed:
        findings.append(_note(f"{', '.join(failed)} did not run before: started after the restore", ""))
    return findings


def _programs(target: Target) -> list[str]:
    """What Mastodon's units start: the first word of each."""
    seen = {unit.id: unit for unit in look_around(target.connection).units}
    lines = (seen[name].exec_start for name in target.installation.units if name in seen)
    words = (line.partition("argv[]=")[2].split() or line.split() for line in lines)
    return [found[0] for found in words if found and found[0].startswith("/")]


def _migration(target: Target, sources: Mapping[Asset, Source]) -> dict[str, object]:
    """Whether the code's migrations must run on the restored database, and past which pooler."""
    source = sources.get(Asset.DATABASE)
    if source is None:
        return {"migrate": False}
    newest = newest_migration(target.connection, target)
    _, migrate = judge_code(source.manifest.facts, newest, target.installation.version)
    place = target.installation.database
    env: dict[str, str] = {}
    said = target.installation.environment.get("DB_PORT")
    if place is not None and said and said.reveal() != str(place.port):
        env = {"DB_HOST": place.host, "DB_PORT": str(place.port)}
    return {"migrate": migrate, "migrate_env": env}


def _early(target: Target, sources: Mapping[Asset, Source]) -> list[Finding]:
    secrets = sources.get(Asset.SECRETS)
    try:
        serving: Mapping[str, Secret] = serving_settings(target, secrets)
    except ConnectionFailed:
        raise
    except MastovaultError:
        return []  # the settings' own look says what is wrong with them
    return early_findings(sources[Asset.DATABASE], serving, target, domain=secrets is None)


def _to_install(target: Target, sources: Mapping[Asset, Source]) -> list[Finding]:
    """What a machine without Mastodon lacks."""
    facts: list[Mapping[str, Any]] = [source.manifest.facts for source in sources.values()]
    version = next((clean(str(each["mastodon_version"]), 60) for each in facts if each.get("mastodon_version")), "")
    root = clean(target.installation.root, 200)
    done = target.connection.run(Command(sh(_MISSING, *_PROGRAMS)), timeout=30)
    missing = [line.split()[1] for line in done.text.splitlines() if line.startswith("mastovault-missing ")]
    findings = [
        _note(
            f"no Mastodon is installed: its code{f' (v{version})' if version else ''} is to be put into {root}, and its"
            " units for systemd; nothing is stopped or started",
            "Install them by Mastodon's guide without mastodon:setup; then `systemctl enable --now mastodon-web"
            " mastodon-streaming mastodon-sidekiq` and `bin/tootctl feeds build`.",
        )
    ]
    if missing:
        packages = " ".join(_PACKAGES.get(name, name) for name in missing)
        findings.append(_note(f"{', '.join(missing)} are not on the target", f"apt-get install {packages}"))
    return findings


def _domain(target: Target) -> str:
    found = target.installation.environment.get("LOCAL_DOMAIN")
    return clean(found.reveal(), 253) if found else ""


def _finding(level: Literal["ok", "note", "block"], text: str, way_out: str) -> Finding:
    return Finding(level=level, text=clean(text), way_out=way_out)


def _ok(text: str) -> Finding:
    return _finding("ok", text, "")


def _note(text: str, way_out: str) -> Finding:
    return _finding("note", text, way_out)


def _block(text: str, way_out: str) -> Finding:
    return _finding("block", text, way_out)
