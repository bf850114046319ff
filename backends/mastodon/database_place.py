"""Where PostgreSQL is, from the settings alone (config/database.yml), and never through PgBouncer."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs, unquote, urlsplit

from backends.config.schema import HostConfig
from backends.mastodon.installation import DatabasePlace
from backends.model import Secret

DEFAULT_SOCKET_DIR = "/var/run/postgresql"
DEFAULT_PORT = 5432
PGBOUNCER_PORT = 6432
_SSL_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}


def database_place(
    environment: Mapping[str, Secret],
    host: HostConfig,
    *,
    sockets: Sequence[str] = (),
    user: str = "",
    login_user: str = "",
) -> DatabasePlace:
    """Where to connect.

    Args:
        environment: the effective settings.
        host: its `database_host`, `database_port` and `database_user` win.
        sockets: paths of PostgreSQL's unix sockets seen on the host (`/var/run/postgresql/.s.PGSQL.5432`).
        user: the system user that Mastodon runs as, for peer authentication.
        login_user: who the connection is.
    """
    warnings: list[str] = []
    settings = _settings(environment, warnings)
    name_or_dir = host.database_host or settings["host"] or _socket_dir(sockets)
    port = host.database_port or _direct_port(environment, settings["port"], name_or_dir, sockets, warnings)
    if host.database_host is None and not settings["host"] and environment.get("DB_HOST") is not None:
        warnings.append(f"DB_HOST is empty: the unix socket in {name_or_dir} is used, as libpq does")
    role = host.database_user or settings["user"]
    # The password belongs to the role it stands beside.
    own_role = host.database_user is None or host.database_user == settings["user"]
    password = Secret(settings["pass"]) if settings["pass"] and own_role else None
    peer = host.database_user or user
    as_user = peer if name_or_dir.startswith("/") and password is None and peer and peer != login_user else None
    sslmode = settings["sslmode"]
    return DatabasePlace(
        host=name_or_dir,
        port=port,
        name=settings["name"],
        user=role,
        password=password,
        sslmode=sslmode if sslmode in _SSL_MODES else "prefer",
        as_user=as_user,
        warnings=tuple(warnings),
    )


def _settings(environment: Mapping[str, Secret], warnings: list[str]) -> dict[str, str]:
    def get(name: str, default: str) -> str:
        found = environment.get(name)
        return default if found is None else found.reveal()

    settings = {
        # An empty DB_HOST is not the same as none: Ruby hands it to libpq, which takes its default socket.
        "host": get("DB_HOST", "localhost"),
        "port": get("DB_PORT", "") or str(DEFAULT_PORT),
        "name": get("DB_NAME", "") or "mastodon_production",
        "user": get("DB_USER", "") or "mastodon",
        "pass": get("DB_PASS", ""),
        "sslmode": get("DB_SSLMODE", "") or "prefer",
    }
    url = get("DATABASE_URL", "")
    if url:
        parsed = _from_url(url)
        if parsed is None:
            warnings.append("DATABASE_URL cannot be read; the DB_* settings are used")
        else:
            settings.update(parsed)
    return settings


def _from_url(url: str) -> dict[str, str] | None:
    """What a `postgres://` address sets; it leaves the rest to DB_*, as Rails merges them."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        host = unquote(parts.hostname or "")
    except ValueError:
        return None
    if parts.scheme not in {"postgres", "postgresql"}:
        return None
    found = {
        "host": query.get("host", host),
        "port": query.get("port", str(port) if port else ""),
        "name": query.get("dbname", unquote(parts.path.lstrip("/"))),
        "user": query.get("user", unquote(parts.username or "")),
        "pass": query.get("password", unquote(parts.password or "")),
        "sslmode": query.get("sslmode", ""),
    }
    return {name: value for name, value in found.items() if value}


def _socket_dir(sockets: Sequence[str]) -> str:
    seen = [posixpath.dirname(path) for path in sockets]
    return DEFAULT_SOCKET_DIR if not seen or DEFAULT_SOCKET_DIR in seen else seen[0]


def _direct_port(
    environment: Mapping[str, Secret], text: str, place: str, sockets: Sequence[str], warnings: list[str]
) -> int:
    port = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 1 <= port <= 65535:
        warnings.append(f"DB_PORT is not a port number; {DEFAULT_PORT} is used")
        port = DEFAULT_PORT
    unprepared = environment.get("PREPARED_STATEMENTS", Secret("")).reveal() == "false"
    if port != PGBOUNCER_PORT and not unprepared:
        return port
    if port != PGBOUNCER_PORT and (port == DEFAULT_PORT or f".s.PGSQL.{port}" in _names(sockets)):
        warnings.append(
            f"PREPARED_STATEMENTS is false, as for PgBouncer; port {port} is taken to be PostgreSQL itself "
            "(database_host and database_port say otherwise)"
        )
        return port
    local = place.startswith("/") or place in {"localhost", "127.0.0.1", "::1"}
    where = "on this host" if local else "on the same machine"
    warnings.append(
        f"port {port} looks like PgBouncer, through which a dump breaks the live site: PostgreSQL is looked for "
        f"{where} at port {DEFAULT_PORT} (database_host and database_port say otherwise)"
    )
    return DEFAULT_PORT


def _names(sockets: Sequence[str]) -> set[str]:
    return {posixpath.basename(path) for path in sockets}
