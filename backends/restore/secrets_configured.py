"""Settings for a machine that has none: where the operator's configuration says its database and Redis are."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from backends.config.schema import HostConfig
from backends.mastodon.database_place import database_place
from backends.mastodon.installation import Installation, RedisPlace
from backends.mastodon.redis_roles import redis_roles
from backends.model import Secret
from backends.restore.secrets_merge import machine_bound

_NOWHERE = HostConfig(address="local")
_DATABASE = ("DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASS", "DATABASE_URL", "PREPARED_STATEMENTS")
_REDIS = ("URL", "HOST", "PORT", "DB", "USER", "PASSWORD", "SENTINELS", "SENTINEL_MASTER", "SENTINEL_PORT")


def configured(found: Installation, stored: Mapping[str, Secret]) -> dict[str, Secret] | None:
    """The machine-bound settings of a snapshot, with those that the configuration of the target's host overrides.

    The restore brings the database and Redis to where the configuration says (`database_host`, `redis_url`, ...); a
    Mastodon with the snapshot's own settings would go on using the servers that those name.

    Args:
        found: the target, as its configuration makes it.
        stored: all settings of the snapshot.

    Returns:
        None when nothing is overridden, so that the snapshot's settings can stay as they are.
    """
    values = {name: value for name, value in stored.items() if machine_bound(name)}
    database, redis = _database(found, stored), _redis(found, stored)
    if database is None and redis is None:
        return None
    if database is not None:
        values = {name: value for name, value in values.items() if name not in _DATABASE} | database
    if redis is not None:
        dropped = {f"REDIS_{name}" for name in _REDIS}
        values = {name: value for name, value in values.items() if name not in dropped} | redis
    return values


def _database(found: Installation, stored: Mapping[str, Secret]) -> dict[str, Secret] | None:
    place, named = found.database, database_place(stored, _NOWHERE)
    if place is None or (place.host, place.port, place.user) == (named.host, named.port, named.user):
        return None
    values = {"DB_HOST": place.host, "DB_PORT": str(place.port), "DB_NAME": place.name, "DB_USER": place.user}
    password = {} if place.password is None else {"DB_PASS": place.password}
    return {name: Secret(value) for name, value in values.items()} | password


def _redis(found: Installation, stored: Mapping[str, Secret]) -> dict[str, Secret] | None:
    place = next((each for each in found.redis if each.role == "base"), None)
    named = redis_roles(stored)[0][0]
    if place is None or place == named or place.sentinel:
        return None
    return {"REDIS_URL": _url(place)}


def _url(place: RedisPlace) -> Secret:
    password = quote(place.password.reveal(), safe="") if place.password else ""
    login = f"{quote(place.user or '', safe='')}:{password}@" if password or place.user else ""
    if place.unix_path:
        return Secret(f"unix://{login}{quote(place.unix_path)}" + (f"?db={place.database}" if place.database else ""))
    host = f"[{place.host}]" if ":" in place.host else place.host
    return Secret(f"{'rediss' if place.tls else 'redis'}://{login}{host}:{place.port}/{place.database}")
