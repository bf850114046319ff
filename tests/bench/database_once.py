"""One database backup, as a run does it, in a process of its own; what to do comes over stdin. See `database`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from backends.archive.writer import begin_snapshot
from backends.assets.base import BackupContext
from backends.assets.database import HANDLER
from backends.config.schema import HostConfig
from backends.connection.open import open_connection
from backends.mastodon.installation import DatabasePlace, Installation, InstallKind
from backends.model import Asset, Secret
from backends.progress import QuietJob
from backends.vault.directory import DirectoryVault


def _back_up(request: dict[str, Any]) -> None:
    """What a run does for its database."""
    place = DatabasePlace(
        host="127.0.0.1",
        port=request["port"],
        name="mastodon_production",
        user="mastodon",
        password=Secret(request["password"]),
        bin_dir=request["bin_dir"],
    )
    installation = Installation(
        host="social", kind=InstallKind.NATIVE, root="/live", user="mastodon", version="4.7.4", database=place
    )
    with open_connection("social", HostConfig(**request["host"])) as connection:
        vault = DirectoryVault("bench", Path(request["vault"]))
        recipients = [request["recipient"]]
        snapshot = begin_snapshot([vault], host="social", asset=Asset.DATABASE, run="bench", recipients=recipients)
        context = BackupContext(connection=connection, installation=installation, job=QuietJob())
        snapshot.commit(HANDLER.back_up(context, snapshot).facts)


if __name__ == "__main__":
    _back_up(json.load(sys.stdin))
