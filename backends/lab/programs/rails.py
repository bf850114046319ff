"""`bin/rails` of a lab host: `db:migrate` and what tells about it, and `dbconsole`."""

from __future__ import annotations

import os
import sys
import time

from backends.lab.programs.settings import read_settings
from backends.lab.programs.wire import Database

_DIRECTORIES = ("db/migrate", "db/post_migrate")


def known(root: str) -> dict[str, str]:
    """The migrations of the code, oldest first: version and name."""
    directories = _DIRECTORIES[:1] if os.environ.get("SKIP_POST_DEPLOYMENT_MIGRATIONS") == "true" else _DIRECTORIES
    names = [name for each in directories for name in os.listdir(f"{root}/{each}")]  # noqa: PTH208
    return {name[:14]: name[15:].removesuffix(".rb") for name in sorted(names) if name[:14].isdigit()}


def migrate(root: str, database: Database) -> int:
    """Note every migration that the database lacks as done, and that this ran."""
    there = set(database.column("SELECT version FROM schema_migrations"))
    missing = {version: name for version, name in known(root).items() if version not in there}
    with open(f"{root}/log/migrate.log", "a", encoding="utf-8") as log:  # noqa: PTH123 - as short as this program
        log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {' '.join(missing) or 'nothing to do'}\n")
    for version, name in missing.items():
        title = "".join(word.title() for word in name.split("_"))
        sys.stdout.write(f"== {version} {title}: migrating ====\n")
        database.ask(f"INSERT INTO schema_migrations VALUES ('{version}')")  # noqa: S608
        sys.stdout.write(f"== {version} {title}: migrated (0.0010s) ====\n\n")
    return 0


def pending(root: str, database: Database) -> int:
    """What `db:abort_if_pending_migrations` says."""
    there = set(database.column("SELECT version FROM schema_migrations"))
    missing = [f"  {version} {name}\n" for version, name in known(root).items() if version not in there]
    if not missing:
        return 0
    sys.stderr.write(f"You have {len(missing)} pending migrations:\n{''.join(missing)}Run `bin/rails db:migrate`\n")
    return 1


def console(settings: dict[str, str], words: list[str]) -> int:
    """Open psql on Mastodon's database; never returns when psql is there."""
    os.environ["PGPASSWORD"] = settings.get("DB_PASS", "")
    place = ["-h", settings.get("DB_HOST", "localhost"), "-p", settings.get("DB_PORT", "5432")]
    role = ["-U", settings.get("DB_USER", "mastodon"), "-d", settings.get("DB_NAME", "mastodon_production")]
    os.execvp("psql", ["psql", *place, *role, *words])  # noqa: S606
    return 127


def main(root: str, *words: str) -> int:
    """Carry out one command line and return its exit status."""
    if os.environ.get("RAILS_ENV") != "production":
        sys.stderr.write("Could not find the gems of the development environment; set RAILS_ENV=production\n")
        return 1
    settings = read_settings(root)
    database = Database(settings, "rails")
    try:
        match words[:1]:
            case ("db:migrate",):
                return migrate(root, database)
            case ("db:abort_if_pending_migrations",):
                return pending(root, database)
            case ("db:version",):
                version = database.ask("SELECT max(version) FROM schema_migrations")
                sys.stdout.write(f"Current version: {version}\n")
                return 0
            case ("dbconsole",) | ("db",):
                return console(settings, [word for word in words[1:] if word not in {"-p", "--include-password"}])
    except OSError as error:
        sys.stderr.write(f"rails aborted!\n{error}\n")
        return 1
    sys.stderr.write(f"Unrecognized command {' '.join(words)!r}\n")
    return 1
