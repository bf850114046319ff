"""What stands in the README.txt beside extracted files: how standard tools take each of them."""

from __future__ import annotations

from collections.abc import Sequence

from backends.model import Asset

_DATABASE = """\
database.pgdump     the database (pg_dump custom format)
    As a user who may create databases, into a fresh one:
        createdb -T template0 -O mastodon mastodon_restored
        pg_restore -n public --no-owner --role=mastodon --exit-on-error -j 4 -d mastodon_restored database.pgdump
        psql -d mastodon_restored -c ANALYZE
    Stop Mastodon, rename both databases, start it again. The secrets must be those of the same server.
"""
_GLOBALS = """\
globals.sql         the roles of the PostgreSQL server
        psql -d postgres -f globals.sql     (roles that are there already are reported, and stay)
"""
_SECRETS = """\
environment/        the settings and secrets, each under its path on the server
    Copy .env.production back with its owner and mode. Put it in place before Mastodon starts for the first time: what
    is encrypted in the database opens with these very keys only. Remove this directory when it is of no more use.
"""
_MEDIA = """\
media/              the uploads: the content of public/system (or PAPERCLIP_ROOT_PATH)
        rsync -a --ignore-existing --chown=mastodon:mastodon media/ /home/mastodon/live/public/system/
    Keep the modes: files with mode 0600 belong to suspended accounts. cache/ is not among them unless it was backed up;
    `tootctl accounts refresh --all` and `tootctl media refresh --days 30 --force` fetch it again.
    Never run `tootctl media remove-orphans` against an older database: it deletes every newer file.
"""
_REDIS = """\
dump.rdb            Redis: queues and feeds (dump-sidekiq.rdb: of a Redis for Sidekiq alone)
    Stop Mastodon, stop Redis, move dump.rdb and the append-only directory of the server aside, put this file in the
    place of dump.rdb with Redis's owner, start Redis with `appendonly no`, and look at DBSIZE. Then
    `CONFIG SET appendonly yes` where it was on. Use it only with the database of the same moment; otherwise start
    empty and run `tootctl feeds build`.
"""


def readme(assets: Sequence[Asset], names: set[str]) -> str:
    """The text for these assets; `names` are the files that are there."""
    parts = ["What is here came out of encrypted backups, and every byte of it was checked.\n"]
    if Asset.DATABASE in assets:
        parts += [_DATABASE, *([_GLOBALS] if "globals.sql" in names else [])]
    parts += [text for asset, text in _LATER.items() if asset in assets]
    return "\n".join(parts)


_LATER = {Asset.SECRETS: _SECRETS, Asset.MEDIA: _MEDIA, Asset.REDIS: _REDIS}
