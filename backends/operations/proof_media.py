"""Whether the media of a snapshot are those of its database: a sample of attachments, looked up and read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from backends.archive.file_index import IndexEntry
from backends.assets.database_session import ask_once
from backends.connection.base import Connection
from backends.errors import AssetFailed
from backends.mastodon.installation import DatabasePlace
from backends.progress import Job
from backends.restore.database_tools import find_toolbox
from backends.restore.media_source import index, members
from backends.restore.source import Source
from backends.untrusted import clean

SAMPLE = 500
"""Attachments that are looked up."""
_READ = 24
_PACKS = 4
_SECONDS = 600.0
# Paperclip's ID_PARTITION_LIMIT (kt-paperclip, lib/paperclip/interpolations.rb).
_PARTITION_LIMIT = 1_000_000_000
_SHOWN = 3

# Only what stood there before either snapshot began: what came later may be in one of them alone.
_ATTACHMENTS = """
SELECT coalesce(jsonb_agg(jsonb_build_array(found.id, found.name)), '[]') FROM (
  SELECT m.id::text AS id, m.file_file_name AS name
  FROM public.media_attachments m JOIN public.accounts a ON a.id = m.account_id
  WHERE a.domain IS NULL AND m.file_file_name <> '' AND m.created_at < '{before}'
  ORDER BY random() LIMIT {limit}) found
"""

_dice = random.SystemRandom()


@dataclass(slots=True, kw_only=True)
class MediaMatch:
    """How a sample of the database's attachments was found among the files."""

    asked: int = 0
    found: int = 0
    missing: list[str] = field(default_factory=list)
    """Some that were not, as paths, cleaned."""
    files: int = 0
    """In the index."""
    read: int = 0
    """Files whose content was read and is what was backed up."""

    @property
    def good(self) -> bool:
        """Whether these are the files of that database. Some may be missing: posts are deleted between two backups."""
        return not self.asked or self.found * 2 > self.asked

    @property
    def sentence(self) -> str:
        """In words."""
        read = f"{self.read} of {self.files} files read"
        if not self.asked:
            return read
        return f"{self.found} of {self.asked} attachments of the database found, {read}"


def attachment_path(number: int, name: str) -> str:
    """Where Mastodon keeps the file of a local account's attachment, relative to the media's root."""
    digits = f"{number:09d}" if number < _PARTITION_LIMIT else f"{number:018d}"
    parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return f"media_attachments/files/{'/'.join(parts)}/original/{name}"


def attachments(connection: Connection, place: DatabasePlace, before: datetime) -> list[str]:
    """Paths of a random sample of the local attachments that are older than a moment. Raises `AssetFailed`."""
    psql = find_toolbox(connection, place).psql
    words = {"before": before.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"), "limit": SAMPLE}
    answer = ask_once(connection, place, psql, _ATTACHMENTS.format(**words), timeout=_SECONDS)
    try:
        return [attachment_path(int(number), str(name)) for number, name in answer]
    except (TypeError, ValueError) as error:
        raise AssetFailed("The list of attachments cannot be read.") from error


def match(source: Source, wanted: Sequence[str], job: Job) -> MediaMatch:
    """Look a sample of paths up in the index, and read the content of some.

    Raises:
        Damaged, KeyUnavailable, VaultError: of the snapshot.
        Cancelled: the operator asked to stop.
    """
    job.step("looking up attachments", total=None, unit="files")
    paths = {path.encode("utf-8", "surrogateescape") for path in wanted}
    result = MediaMatch(asked=len(paths))
    hits: list[IndexEntry] = []
    others: list[IndexEntry] = []
    for entry in index(source):
        result.files += 1
        if entry.path in paths:
            hits.append(entry)
        elif _dice.randrange(result.files) < _READ:  # reservoir sampling: every file has the same chance
            others = [*others, entry] if len(others) < _READ else _replaced(others, entry)
        if result.files % 1000 == 0:
            job.advance(1000)
            job.check_cancelled()
    result.found = len(hits)
    missing = sorted(paths - {entry.path for entry in hits})
    result.missing = [clean(path, 200) for path in missing[:_SHOWN]]
    result.read = _read(source, hits or others, job)
    return result


def _replaced(entries: list[IndexEntry], entry: IndexEntry) -> list[IndexEntry]:
    entries[_dice.randrange(len(entries))] = entry
    return entries


def _read(source: Source, entries: list[IndexEntry], job: Job) -> int:
    """Read some of the files, out of a few packs only, for a pack is read from its beginning."""
    _dice.shuffle(entries)
    packs = list(dict.fromkeys(entry.pack for entry in entries))[:_PACKS]
    chosen = [entry for entry in entries if entry.pack in packs][:_READ]
    job.step("reading files", total=sum(entry.size for entry in chosen))
    count = 0
    for member in members(source, chosen):
        for piece in member.content:
            job.check_cancelled()
            job.advance(len(piece))
        count += 1
    return count
