"""Letting something go wrong on a lab host, so that there is a reason to restore it."""

from __future__ import annotations

import shutil
from pathlib import Path

from backends.errors import ConfigurationError
from backends.lab.host import LabHost
from backends.model import Asset


def damage(host: LabHost, asset: Asset = Asset.DATABASE) -> str:
    """Lose one asset of a host, as people and disks do; returns what was done, in a sentence.

    Raises:
        ConfigurationError: there is no such asset on the host, or it is gone already.
    """
    if host.plan.empty:
        raise ConfigurationError(f"{host.name} is empty: there is nothing to damage", "Choose another host.")
    match asset:
        case Asset.DATABASE:
            name = host.database.name
            if host.postgres.run_sql("SELECT to_regclass('public.statuses')", name).strip() == "":
                raise ConfigurationError(f"the posts of {host.name} are gone already", "Restore it, or choose another.")
            posts = host.postgres.run_sql("SELECT count(*) FROM statuses", name).strip()
            host.postgres.run_sql("DROP TABLE statuses CASCADE", name)
            return f"DROP TABLE statuses CASCADE on {host.name}: {posts} posts are gone"
        case Asset.SECRETS:
            (host.root / ".env.production").unlink(missing_ok=True)
            return f"rm .env.production on {host.name}: its secrets are gone"
        case Asset.MEDIA:
            return _lose_files(host)
        case Asset.REDIS:
            with host.redis.client() as client:
                keys = client.dbsize()
                client.flushall()
            return f"FLUSHALL in the Redis of {host.name}: {keys} keys are gone"


def _lose_files(host: LabHost) -> str:
    if host.plan.bucket:
        raise ConfigurationError(f"the media of {host.name} are in a bucket", "Choose another host.")
    lost = Path(host.root / "public/system/media_attachments")
    files = sum(path.is_file() for path in lost.rglob("*"))
    shutil.rmtree(lost, ignore_errors=True)
    return f"rm -r public/system/media_attachments on {host.name}: {files} files are gone"
