"""Each host's database: Mastodon's tables with rows made from a seed, keys and two-factor secrets really encrypted."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib.resources import files

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from backends.embedded.postgres import PostgresServer
from backends.lab.fleet_plan import HostPlan
from backends.lab.migrations import migrations
from backends.lab.population import EPOCH, Person, Population
from backends.lab.rails_encryption import RailsCipher
from backends.lab.words import corpus

_NOW = EPOCH.strftime("%Y-%m-%d %H:%M:%S")


@dataclass(frozen=True, slots=True)
class DatabaseLogin:
    """How Mastodon on one host reaches its database."""

    host: str
    port: int
    name: str
    user: str
    password: str


def create_database(
    server: PostgresServer, plan: HostPlan, login: DatabaseLogin, population: Population, cipher: RailsCipher
) -> None:
    """Make a host's role and database and fill it. Raises `ServerFailed`."""
    version = tuple(int(part) for part in plan.version.split("."))
    script = [
        f"CREATE ROLE {login.user} LOGIN CREATEDB PASSWORD '{login.password}';",
        f"CREATE DATABASE {login.name} OWNER {login.user} TEMPLATE template0;",
        f"REVOKE CONNECT ON DATABASE {login.name} FROM PUBLIC;",
        f"\\connect {login.name}",
        f"SET ROLE {login.user};",
        "BEGIN;",
        _sql("schema.sql").replace("@SALT@", secrets.token_hex(16)),
        *_rows(plan, population, cipher, version),
        add_statuses_sql(population.statuses, plan.seed, plan.domain),
        _AFTER,
        "DROP TABLE keypairs;" if version < (4, 6) else "",
        _without_keypairs(_sql("indexes.sql")) if version < (4, 6) else _sql("indexes.sql"),
        "COMMIT;",
        "ANALYZE;",
    ]
    server.run_sql("\n".join(script))


def clone_database(server: PostgresServer, template: str, logins: Sequence[DatabaseLogin]) -> None:
    """Make many databases as copies of one, with the same owner. Raises `ServerFailed`."""
    server.run_sql(
        "\n".join(
            f"CREATE DATABASE {login.name} OWNER {login.user} TEMPLATE {template} STRATEGY FILE_COPY;"
            for login in logins
        )
    )


def add_statuses_sql(count: int, seed: int, domain: str) -> str:
    """A script that adds posts on the server's side, a few hundred thousand a minute; its text shrinks about 3:1.

    Each post is a slice of a text made of words as frequent as in a language, taken at a place of its own; the text
    is larger than a compressor's window when many posts are asked for.
    """
    chunks = corpus(seed, 600 if count <= 20_000 else 8000)
    return "\n".join(
        [
            "SET work_mem = '128MB';",
            "CREATE TEMP TABLE lab_text (n integer PRIMARY KEY, body text NOT NULL);",
            _copy("lab_text", ("n", "body"), enumerate(chunks)),
            "CREATE TEMP TABLE lab_people AS SELECT (row_number() OVER (ORDER BY id) - 1)::integer AS n, id, username,"
            " domain FROM accounts;",
            "ANALYZE lab_text; ANALYZE lab_people;",
            _STATUSES.format(
                count=count,
                seed=seed,
                domain=domain,
                chunks=len(chunks),
                now=_NOW,
                step=max(1, int(250 * 86400 * 1000 / max(count, 1))),
            ),
            "DROP TABLE lab_text; DROP TABLE lab_people;",
        ]
    )


_STATUSES = """
INSERT INTO statuses (id, uri, url, text, created_at, updated_at, visibility, reply, language, local, account_id)
SELECT number, 'https://' || COALESCE(p.domain, '{domain}') || '/users/' || p.username || '/statuses/' || number,
  'https://' || COALESCE(p.domain, '{domain}') || '/@' || p.username || '/' || number,
  CASE WHEN p.domain IS NULL THEN said ELSE '<p>' || said || '</p>' END, moment, moment,
  (h >> 8) % 3, h % 5 = 0, (ARRAY['en', 'de', 'fr', 'ja', 'nl'])[1 + h % 5], p.domain IS NULL, p.id
FROM (
  SELECT g, h, at AS moment,
    (((extract(epoch FROM at) * 1000)::bigint) << 16) | (hashint8extended(g, 7) & 65535) AS number,
    substr(t.body, (1 + (h >> 11) % 1500)::integer, (60 + (h >> 3) % 420)::integer) AS said
  FROM (
    SELECT g, hashint8extended(g, {seed}) & 4611686018427387903 AS h,
      timestamp '{now}' - (base.rows + {count} - g) * {step} * interval '1 millisecond' AS at
    FROM (SELECT count(*) AS rows FROM statuses) base, generate_series(base.rows + 1, base.rows + {count}) g
  ) numbered JOIN lab_text t ON t.n = (h >> 20) % {chunks}
) written JOIN lab_people p ON p.n = (h >> 32) % (SELECT count(*) FROM lab_people)
ORDER BY g
ON CONFLICT DO NOTHING;
"""

_AFTER = """
UPDATE media_attachments m SET status_id = s.id
  FROM (SELECT account_id, max(id) AS id FROM statuses GROUP BY account_id) s WHERE s.account_id = m.account_id;
INSERT INTO status_stats (status_id, favourites_count, created_at, updated_at)
  SELECT id, id % 40, created_at, created_at FROM statuses WHERE id % 7 = 0;
INSERT INTO follows (account_id, target_account_id, created_at, updated_at)
  SELECT a.id, b.id, now(), now() FROM accounts a JOIN accounts b ON a.id <> b.id
  WHERE a.domain IS NULL AND (a.id + b.id) % 3 = 0;
SELECT setval('users_id_seq', (SELECT max(id) FROM users)),
  setval('statuses_id_seq', (SELECT count(*) + 1 FROM statuses)),
  setval('accounts_id_seq', (SELECT count(*) + 1 FROM accounts)),
  setval('media_attachments_id_seq', (SELECT count(*) + 1 FROM media_attachments)) \\g /dev/null
"""


def _rows(plan: HostPlan, population: Population, cipher: RailsCipher, version: tuple[int, ...]) -> Iterable[str]:
    yield _copy("schema_migrations", ("version",), ((each,) for each in migrations(plan.version)))
    yield _copy(
        "ar_internal_metadata",
        ("key", "value", "created_at", "updated_at"),
        [("environment", "production", _NOW, _NOW)],
    )
    yield _accounts(plan, population, version)
    yield _users(plan, population, cipher)
    if version >= (4, 6):
        yield _keypairs(plan, population, cipher, version)
    yield _media(population)
    yield _copy(
        "settings",
        ("var", "value", "created_at", "updated_at"),
        [(name, f"--- {value}\n", _NOW, _NOW) for name, value in (("site_title", plan.name), ("theme", "default"))],
    )
    yield _copy("domain_blocks", ("domain", "created_at", "updated_at"), [("spam.example", _NOW, _NOW)])


def _accounts(plan: HostPlan, population: Population, version: tuple[int, ...]) -> str:
    private, public = key_pair(0)
    plain_keys = version < (4, 7)

    def row(person: Person) -> tuple[object, ...]:
        where = person.domain or plan.domain
        home = f"https://{where}/users/{person.username}"
        return (
            *(person.id, person.username, person.domain, private if plain_keys and not person.domain else None, public),
            *(_NOW, _NOW, person.username.title(), home, f"https://{where}/@{person.username}", f"{home}/inbox"),
            *(person.avatar, "image/png" if person.avatar else None, 12_000 if person.avatar else None),
            *(1 if person.avatar else None, _NOW if person.suspended else None),
        )

    columns = (
        *("id", "username", "domain", "private_key", "public_key", "created_at", "updated_at", "display_name", "uri"),
        *("url", "inbox_url", "avatar_file_name", "avatar_content_type", "avatar_file_size"),
        *("avatar_storage_schema_version", "suspended_at"),
    )
    return _copy("accounts", columns, map(row, population.people))


def _users(plan: HostPlan, population: Population, cipher: RailsCipher) -> str:
    def row(person: Person) -> tuple[object, ...]:
        seen = EPOCH - timedelta(hours=person.user_id or 0)
        return (
            *(person.user_id, f"{person.username}@{plan.domain}", _NOW, _NOW, "$2a$10$" + "x" * 53, seen, _NOW, "en"),
            *(person.otp_secret is not None, person.id, f"192.0.2.{person.user_id}"),
            cipher.encrypt(person.otp_secret) if person.otp_secret else None,
        )

    columns = (
        *("id", "email", "created_at", "updated_at", "encrypted_password", "current_sign_in_at", "confirmed_at"),
        *("locale", "otp_required_for_login", "account_id", "sign_up_ip", "otp_secret"),
    )
    return _copy("users", columns, map(row, population.local))


def _keypairs(plan: HostPlan, population: Population, cipher: RailsCipher, version: tuple[int, ...]) -> str:
    """Since 4.7 local accounts' private keys are here, encrypted; 4.6 keeps only other servers' public keys."""

    def row(person: Person) -> tuple[object, ...]:
        private, public = key_pair(0 if person.domain is None else 1)
        where = person.domain or plan.domain
        sealed = None if person.domain else cipher.encrypt(private)
        return (person.id, f"https://{where}/users/{person.username}#main-key", 0, public, sealed, _NOW, _NOW)

    chosen = [person for person in population.people if person.domain or version >= (4, 7)]
    columns = ("account_id", "uri", "type", "public_key", "private_key", "created_at", "updated_at")
    return _copy("keypairs", columns, map(row, chosen))


def _media(population: Population) -> str:
    columns = (
        *("id", "account_id", "file_file_name", "file_content_type", "file_file_size", "remote_url"),
        *("created_at", "updated_at", "file_storage_schema_version"),
    )
    return _copy(
        "media_attachments",
        columns,
        (
            (
                *(medium.id, medium.account_id, medium.file_name, medium.content_type, medium.bytes),
                *(f"https://{medium.remote_domain}/m/{medium.id}" if medium.remote_domain else "", _NOW, _NOW, 1),
            )
            for medium in population.media
        ),
    )


@cache
def key_pair(_number: int) -> tuple[str, str]:
    """An RSA key as Mastodon keeps them, in PEM; the lab has only a few, for making one takes long."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def _copy(table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = "\n".join("\t".join(map(_cell, row)) for row in rows)
    return f"COPY {table} ({', '.join(columns)}) FROM STDIN;\n{lines}\n\\.\n"


def _cell(value: object) -> str:
    if value is None:
        return r"\N"
    if isinstance(value, bool):
        return "t" if value else "f"
    return str(value).replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


def _sql(name: str) -> str:
    return files("backends.lab").joinpath(name).read_text("utf-8")


def _without_keypairs(script: str) -> str:
    return ";\n".join(part for part in script.split(";\n") if " keypairs " not in part)
