"""Which Redis serves which role, from the settings alone (lib/mastodon/redis_configuration.rb)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from backends.mastodon.installation import RedisPlace
from backends.model import Secret

DEFAULT_PORT = 6379
SENTINEL_PORT = 26379


def redis_roles(
    environment: Mapping[str, Secret], url_override: str | None = None
) -> tuple[tuple[RedisPlace, ...], tuple[str, ...]]:
    """The three roles `base`, `sidekiq` and `cache`, and warnings.

    A role that has neither a URL, a host nor sentinels of its own is the base as a whole; single parts are never
    inherited (the documentation says otherwise, the code decides).

    Args:
        environment: the effective settings.
        url_override: `redis_url` of the host's configuration; it takes the place of `REDIS_URL`.
    """
    settings = dict(environment)
    if url_override:
        settings["REDIS_URL"] = Secret(url_override)
    warnings: list[str] = []
    base = _role("base", "REDIS_", settings, warnings) or RedisPlace(role="base")
    roles = [base]
    for role in ("sidekiq", "cache"):
        own = _role(role, f"{role.upper()}_REDIS_", settings, warnings)
        roles.append(own or replace(base, role=role))
    return tuple(roles), tuple(warnings)


def _role(role: str, prefix: str, settings: Mapping[str, Secret], warnings: list[str]) -> RedisPlace | None:
    def get(name: str) -> str:
        return settings.get(prefix + name, Secret("")).reveal()

    url = get("URL")
    if url:
        place = parse_redis_url(role, url)
        if place is None:
            warnings.append(f"{prefix}URL is no address of a Redis that is understood here")
        return place
    host = get("HOST") or ("localhost" if role == "base" else "")
    sentinel = _sentinel(get("SENTINELS"), get("SENTINEL_PORT")) if get("SENTINEL_MASTER") else None
    if not host and sentinel is None:
        return None
    place = RedisPlace(
        role=role,
        host=host,
        port=_number(get("PORT"), DEFAULT_PORT, prefix + "PORT", warnings),
        database=_number(get("DB"), 0, prefix + "DB", warnings),
        user=get("USER") or None,
        password=Secret(get("PASSWORD")) if get("PASSWORD") else None,
    )
    if sentinel is not None:
        master = get("SENTINEL_MASTER")
        place = replace(place, host=sentinel[0], port=sentinel[1], sentinel=True, sentinel_master=master)
        warnings.append(f"{prefix}SENTINELS: the {role} Redis is found through Sentinel")
    return place


def parse_redis_url(role: str, url: str) -> RedisPlace | None:
    """A role from `redis://`, `rediss://` or `unix://`; None when it is none of them or cannot be read."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        host = parts.hostname
    except ValueError:
        return None
    user = unquote(parts.username) if parts.username else None
    password = Secret(unquote(parts.password)) if parts.password else None
    if parts.scheme == "unix":
        path = unquote((parts.hostname or "") + parts.path) if not parts.path.startswith("/") else unquote(parts.path)
        if not path.startswith("/"):
            return None
        return RedisPlace(role=role, unix_path=path, database=_database(parts), user=user, password=password)
    if parts.scheme not in {"redis", "rediss"}:
        return None
    return RedisPlace(
        role=role,
        host=host or "localhost",
        port=port or DEFAULT_PORT,
        database=_database(parts),
        user=user,
        password=password,
        tls=parts.scheme == "rediss",
    )


def _database(parts: SplitResult) -> int:
    asked = parse_qs(parts.query).get("db", [""])[0]
    text = asked or (parts.path.lstrip("/") if parts.scheme != "unix" else "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0


def _sentinel(addresses: str, default_port: str) -> tuple[str, int] | None:
    first = next((each.strip() for each in addresses.split(",") if each.strip()), "")
    host, _, port = first.partition(":")
    chosen = port or default_port
    number = int(chosen) if chosen.isascii() and chosen.isdigit() and len(chosen) < 6 else SENTINEL_PORT
    return (host, number) if host else None


def _number(text: str, default: int, name: str, warnings: list[str]) -> int:
    if not text:
        return default
    if text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= 65535:
        return int(text)
    warnings.append(f"{name} is not a number; {default} is used")
    return default
