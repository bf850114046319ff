"""After a restore: undoing it, continuing or rolling back one that was interrupted, forgetting what was kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from backends.assets.database_access import place_of
from backends.assets.database_programs import find_programs
from backends.assets.database_session import ask_once
from backends.catalog import Catalog
from backends.config.paths import Paths
from backends.config.schema import Config
from backends.errors import ConfigurationError, DiscoveryFailed, MastovaultError
from backends.model import Asset, JobResult, Secret
from backends.operations.choose import sources
from backends.operations.line import Line
from backends.operations.reading import Reading, reading
from backends.operations.restore import OnResult, failed, holding
from backends.operations.restore_walk import Walk, outcome
from backends.operations.restores import RestoreRecord, folder_of, restores
from backends.operations.trust_words import require_trusted
from backends.progress import Job
from backends.restore.journal import Journal, State, opened
from backends.restore.parts import actions_of
from backends.restore.source import Source
from backends.restore.target import find_target
from backends.untrusted import clean

_WORDS = {"undo": "undone", "resume": "continued", "rollback": "rolled back", "forget": "forgotten"}


def go_on(
    config: Config,
    paths: Paths,
    restore: str,
    what: str,
    jobs: Mapping[Asset, Job],
    run_id: str,
    on_result: OnResult = lambda _result: None,
) -> list[JobResult]:
    """Do one of the things that can still be done about a restore: `undo`, `resume`, `rollback`, `forget`.

    Returns:
        One result for each of its assets. Faults are results, never raised.

    Raises:
        ConfigurationError: there is no such restore, or this cannot be done about it.
    """
    began = time.monotonic()
    record = _possible(paths, restore, what)
    folder = folder_of(paths, record.id)
    main = next(iter(jobs.values()))
    line = Line(record.host, config.hosts[record.host])
    with opened(folder) as journal:
        try:
            with (
                holding(paths, journal.known.request, run_id),
                reading(run_id, "restored", main.log, main.check_cancelled) as leases,
            ):
                walk = _walk(config, paths, journal, line, jobs, main, what, leases)
                state = _carry_out(walk, journal, what)
            results = outcome(state, journal.known.request, journal, began, walk.warnings)
        except MastovaultError as error:
            results = failed(journal.known.request, error, began)
        finally:
            line.close()
    for result in results:
        on_result(result)
    return results


def _possible(paths: Paths, restore: str, what: str) -> RestoreRecord:
    record = next((each for each in restores(paths) if each.id == restore), None)
    if record is None:
        raise ConfigurationError(f"there is no restore {clean(restore, 40)!r}", "`mastovault undo` lists them.")
    if what not in record.can:
        can = ", ".join(record.can) or "nothing"
        raise ConfigurationError(
            f"the restore {record.id} cannot be {_WORDS.get(what, what)}: it is {record.sentence}",
            f"What can be done about it now: {can}.",
        )
    return record


def _carry_out(walk: Walk, journal: Journal, what: str) -> State:
    if what == "forget":
        return walk.forget()
    if what in {"rollback", "undo"}:
        return walk.back("rollback" if what == "rollback" else "undo")
    # What is continued may have been on its way back.
    return walk.back(journal.known.walk) if journal.known.walk else walk.forward()


def _walk(
    config: Config,
    paths: Paths,
    journal: Journal,
    line: Line,
    jobs: Mapping[Asset, Job],
    main: Job,
    what: str,
    leases: Reading,
) -> Walk:
    request = journal.known.request
    catalog = Catalog(paths.cache_dir, config.signers)
    main.step("looking")
    found: dict[Asset, Source] = {}
    if what == "resume" and not journal.known.walk:
        found = sources(config, catalog, request.snapshots, main.ask, main.log, leases)
        require_trusted(found.values(), config.signers, request.accept)  # the vault may have changed since
    connection = line.connect(main.log, time.sleep, main.ask)
    try:
        target = find_target(connection, config.hosts[request.host], request, found)
    except DiscoveryFailed:
        # A machine that was bare when it began is so again: only the secrets say where things are.
        found = sources(config, catalog, request.snapshots, main.ask, main.log, leases)
        target = find_target(connection, config.hosts[request.host], request, found)
    actions = actions_of(request, journal.known.facts)
    return Walk(config, journal, actions, found, target, line, jobs)


def undo_words(
    config: Config, paths: Paths, restore: str, ask: Callable[[str], Secret | None] | None = None
) -> tuple[str, ...]:
    """What an undo would lose: what was written since the restore, as sentences; empty when nothing was.

    Raises:
        ConfigurationError: there is no such restore.
        ConnectionFailed, AssetFailed: its target cannot be asked.
    """
    record = _possible(paths, restore, "undo")
    if Asset.DATABASE not in record.snapshots or record.swapped_at is None:
        return ()
    line = Line(record.host, config.hosts[record.host])
    try:
        connection = line.connect(lambda _line: None, time.sleep, ask)
        with opened(folder_of(paths, record.id)) as journal:
            target = find_target(connection, config.hosts[record.host], journal.known.request, {})
        place = place_of(target.installation)
        since = record.swapped_at.strftime("%Y-%m-%d %H:%M:%S")
        # The time is ours: digits and punctuation
        query = (
            f"SELECT jsonb_build_object('posts', (SELECT count(*) FROM public.statuses WHERE created_at > '{since}'), "  # noqa: S608
            f"'accounts', (SELECT count(*) FROM public.accounts WHERE created_at > '{since}'))"
        )
        counted = ask_once(connection, place, find_programs(connection, place).psql, query)
    finally:
        line.close()
    new = [f"{int(count)} {what if count != 1 else what[:-1]}" for what, count in counted.items() if count]
    return (
        (f"{' and '.join(new)} made since the restore leave the site (kept aside until it is forgotten)",)
        if new
        else ()
    )
