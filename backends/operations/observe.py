"""Asking one host how it is: is it there, what is on it, what do its assets look like."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import datetime

from backends.assets.registry import handler
from backends.config.schema import Config
from backends.connection.base import Connection
from backends.connection.open import open_connection
from backends.errors import (
    ConnectionFailed,
    DiscoveryFailed,
    HostKeyChanged,
    HostKeyUnknown,
    LoginRefused,
    MastovaultError,
)
from backends.mastodon.discovery import discover
from backends.mastodon.installation import Installation
from backends.mastodon.kinds import require_supported
from backends.model import Asset, AssetObservation, HostObservation, HostState
from backends.operations.fleet_words import NOTHING_YET
from backends.untrusted import clean

LOOK_SECONDS = 30.0
_STATES: tuple[tuple[type[MastovaultError], HostState], ...] = (
    (HostKeyChanged, HostState.HOST_KEY_CHANGED),
    (HostKeyUnknown, HostState.HOST_KEY_UNKNOWN),
    (LoginRefused, HostState.LOGIN_FAILED),
    (ConnectionFailed, HostState.OFFLINE),
    (DiscoveryFailed, HostState.NO_MASTODON),
)


def observe_host(name: str, config: Config, previous: HostObservation | None, now: datetime) -> HostObservation:
    """Look at a host, read-only, in some seconds; its faults are part of the answer, never raised.

    A host that does not answer keeps what was last seen of its assets; `since` stays while the state does.
    """
    host = config.hosts[name]
    try:
        with open_connection(name, host) as connection, _bounded(connection) as expired:
            try:
                found = discover(connection, name, host)
                assets = without_data(found, tuple(_look(connection, found, asset) for asset in host.assets))
            except MastovaultError:
                if expired():
                    raise _too_slow(name) from None
                raise
    except MastovaultError as error:
        state = next((state for kind, state in _STATES if isinstance(error, kind)), HostState.FAILED)
        return _seen(name, state, previous, now, message=error.sentence, next_step=error.next_step)
    except Exception as error:  # noqa: BLE001 - one host's surprise must not hide the others
        message = f"an internal error stopped the look at {name} ({type(error).__name__})"
        return _seen(name, HostState.FAILED, previous, now, message=message, next_step="Please report it.")
    try:
        require_supported(found)
    except DiscoveryFailed as error:
        words = {"message": error.sentence, "next_step": error.next_step}
        return _seen(name, HostState.NO_MASTODON, previous, now, found=found, assets=assets, **words)
    return _seen(name, HostState.ONLINE, previous, now, found=found, assets=assets)


@contextlib.contextmanager
def _bounded(connection: Connection) -> Iterator[Callable[[], bool]]:
    """Close the connection when a look takes too long, which ends whatever waits for it."""
    expired = threading.Event()

    def close() -> None:
        expired.set()
        connection.close()

    timer = threading.Timer(LOOK_SECONDS, close)
    timer.daemon = True
    timer.start()
    try:
        yield expired.is_set
    finally:
        timer.cancel()


def _too_slow(name: str) -> ConnectionFailed:
    return ConnectionFailed(
        f"{name} did not answer everything within {LOOK_SECONDS:.0f} seconds", "Look at the load of the host."
    )


def _look(connection: Connection, found: Installation, asset: Asset) -> AssetObservation:
    try:
        return handler(asset).probe(connection, found)
    except ConnectionFailed:
        raise
    except MastovaultError as error:
        return AssetObservation(asset=asset, present=False, detail=error.sentence, warnings=(error.sentence,))


def without_data(found: Installation, assets: tuple[AssetObservation, ...]) -> tuple[AssetObservation, ...]:
    """What was seen, or that nothing is there yet: code without settings, without a database, without one upload.

    A machine that waits to be restored onto is no loss. Whatever is in doubt counts as data.
    """
    if found.secret_files or found.domain or not found.root:
        return assets
    seen = {each.asset: each for each in assets}
    database, media = seen.get(Asset.DATABASE), seen.get(Asset.MEDIA)
    if database is None or database.bytes is not None or media is None or (media.present and media.bytes != 0):
        return assets
    return tuple(AssetObservation(asset=each.asset, present=False, detail=NOTHING_YET) for each in assets)


def _seen(
    name: str,
    state: HostState,
    previous: HostObservation | None,
    now: datetime,
    *,
    message: str = "",
    next_step: str = "",
    found: Installation | None = None,
    assets: tuple[AssetObservation, ...] = (),
) -> HostObservation:
    same = previous is not None and previous.state is state
    known = found is not None
    return HostObservation(
        host=name,
        state=state,
        asked_at=now,
        since=previous.since if previous and same else now,
        message=message,
        next_step=next_step,
        kind=found.kind.value if found else (previous.kind if previous else ""),
        version=clean(found.version, 40) if found else (previous.version if previous else ""),
        machine_id=found.machine_id if found else (previous.machine_id if previous else ""),
        assets=assets if known else (previous.assets if previous else ()),
    )
