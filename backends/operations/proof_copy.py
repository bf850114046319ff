"""Whether one vault's copy of a snapshot is whole: its manifest, every object, and what is in them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from io import BufferedReader
from typing import Any, BinaryIO, cast

from backends.archive.layout import MAX_MANIFEST, manifest_key
from backends.archive.manifest import Manifest, ObjectEntry, Seal
from backends.archive.reader import open_object, open_stored, parse_sealed
from backends.assets.database_header import HEADER_BYTES, parse_header
from backends.errors import AssetFailed, Damaged, KeyUnavailable, NotFound
from backends.operations.proof_files import MediaProof, environment, globals_sql, is_pack, read_all
from backends.operations.proof_tools import GET_TOOLS, checker_of, feed, fitting_pg_restore, fitting_redis
from backends.operations.proof_vault import WatchedVault
from backends.progress import Job
from backends.restore.database_tools import dump_major
from backends.restore.media_source import INDEX
from backends.restore.redis_crc import RdbChecksum
from backends.untrusted import clean
from backends.vault.base import Vault

_MOST_PROBLEMS = 8
_CANNOT = ("does not support compression", "unsupported version")
"""What pg_restore says when it is not made for a dump, which says nothing about the dump."""
_HEAD = 60

_dice = random.SystemRandom()


@dataclass(slots=True, kw_only=True)
class CopyReport:
    """What was found in one vault's copy."""

    vault: str
    problems: list[str] = field(default_factory=list)
    """What is wrong with it; empty means that it is good."""
    left_out: list[str] = field(default_factory=list)
    """What could not be checked here, and how it could."""
    tools: list[str] = field(default_factory=list)
    objects: int = 0
    """How many were read, of how many."""
    of: int = 0
    bytes: int = 0
    files: int = 0
    """Media files whose content was compared."""
    seal: Seal | None = None
    """Who signed the manifest; None when it could not be read."""

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def whole(self) -> bool:
        """Whether all of it was read."""
        return self.objects == self.of

    def problem(self, text: str) -> None:
        """Remember what is wrong; of many only the first."""
        if len(self.problems) < _MOST_PROBLEMS and text not in self.problems:
            self.problems.append(clean(text, 300))


def check_copy(
    vault: Vault, snapshot: str, identities: Sequence[Any], job: Job, *, sample: int | None = None
) -> CopyReport:
    """Read one vault's copy of a snapshot and decode it.

    Args:
        vault: the vault.
        snapshot: its id.
        identities: what opens it.
        job: steps, progress, cancel.
        sample: how many objects to read, chosen at random so that every byte has the same chance; None reads all. The
            manifest and the index of the media are always read.

    Raises:
        NotFound: the vault does not hold it.
        KeyUnavailable: no identity opens it.
        VaultFormatTooNew, VaultError: it cannot be read now, which says nothing about its bytes.
        Cancelled: the operator asked to stop.
    """
    report = CopyReport(vault=vault.name)
    job.step(f"reading {vault.name}")
    watched = WatchedVault(vault, job)
    manifest = _manifest(watched, snapshot, report)
    if manifest is None:
        return report
    chosen = choose(manifest.objects, sample)
    report.of, report.objects = len(manifest.objects), len(chosen)
    report.bytes = sum(entry.bytes for entry in chosen)
    job.step(f"reading {vault.name}", total=report.bytes)
    _Copy(watched, manifest, identities, job, report).check(chosen)
    return report


def choose(objects: Sequence[ObjectEntry], sample: int | None) -> list[ObjectEntry]:
    """The objects to read, in their order: all, or the index and `sample` others, the large ones more likely."""
    if sample is None or sample >= len(objects):
        return list(objects)
    chosen = {number for number, entry in enumerate(objects) if _is_index(entry)}
    left = [number for number in range(len(objects)) if number not in chosen]
    # Efraimidis and Spirakis: those that come first, each at its own rate, are a weighted sample without repetition.
    left.sort(key=lambda number: _dice.expovariate(max(1, objects[number].bytes)))
    chosen.update(left[: max(0, sample)])
    return [entry for number, entry in enumerate(objects) if number in chosen]


def _is_index(entry: ObjectEntry) -> bool:
    return entry.name.startswith(f"{INDEX}.") or entry.name == INDEX


def _manifest(vault: Vault, snapshot: str, report: CopyReport) -> Manifest | None:
    """The manifest, compared with its own SHA-256 and signature; None when it is damaged."""
    key = manifest_key(snapshot)
    try:
        with closing(vault.read(key)) as stored:
            data = stored.read(MAX_MANIFEST + 1)
        manifest, seal = parse_sealed(key, data)
    except Damaged as error:
        report.problem(error.sentence)
        return None
    report.seal = seal
    if seal.sha256 == "absent":
        report.problem(f"the manifest of {snapshot} does not end in its own SHA-256")
    elif seal.signature == "bad":
        report.problem(f"the manifest of {snapshot} was changed after it was written")
    return None if report.problems else manifest


class _Copy:
    """One copy being read."""

    def __init__(
        self, vault: Vault, manifest: Manifest, identities: Sequence[Any], job: Job, report: CopyReport
    ) -> None:
        self._vault, self._manifest, self._identities = vault, manifest, identities
        self._job, self._report = job, report
        self._media: MediaProof | None = None

    def check(self, chosen: Sequence[ObjectEntry]) -> None:
        """All chosen objects, the index first."""
        packs = [entry for entry in chosen if is_pack(entry)]
        index = next((entry for entry in self._manifest.objects if _is_index(entry)), None)
        if packs or index is not None:
            self._media = MediaProof(self._manifest, {entry.name for entry in packs}, self._report.problem)
            if index is None:
                self._report.problem("the manifest names no index of its files")
        for entry in sorted(chosen, key=lambda entry: not _is_index(entry)):
            if not is_pack(entry):
                self._guarded(entry, self._decoder(entry))
        if self._media is not None:
            self._packs(self._media, packs)
        self._report.files = self._media.files if self._media else 0

    def _packs(self, media: MediaProof, packs: Sequence[ObjectEntry]) -> None:
        """Packs in the order in which the index names them, which keeps memory small; then those it does not name."""
        by_name = {entry.name: entry for entry in packs}
        for pack, entries in media.by_pack():
            entry = by_name.pop(pack, None)
            if entry is not None:
                self._guarded(entry, partial(media.check_pack, entries=entries))
        for entry in by_name.values():
            self._guarded(entry, read_all)

    def _guarded(self, entry: ObjectEntry, decode: Callable[[BinaryIO], None]) -> None:
        """One object; what is wrong with it is noted, and the others are looked at all the same."""
        try:
            with closing(open_object(self._vault, self._manifest, entry, self._identities)) as plain:
                decode(plain)
                read_all(plain)
        except KeyUnavailable:
            # Changed bytes in its header look like another key: only what is stored as it was lacks the key.
            if not self._is_changed(entry):
                raise
        except (Damaged, NotFound, AssetFailed) as error:
            if isinstance(error, NotFound):
                self._vault.read(manifest_key(self._manifest.id)).close()  # removed as a whole meanwhile
            self._report.problem(_named(entry, error.sentence))

    def _is_changed(self, entry: ObjectEntry) -> bool:
        try:
            with closing(open_stored(self._vault, self._manifest, entry)) as stored:
                stored.drain()
        except Damaged as error:
            self._report.problem(_named(entry, error.sentence))
            return True
        return False

    def _decoder(self, entry: ObjectEntry) -> Callable[[BinaryIO], None]:
        kinds: dict[str, Callable[[BinaryIO], None]] = {
            "database.pgdump": self._dump,
            "globals.sql": globals_sql,
            "environment.tar": lambda plain: environment(plain, self._manifest),
            "dump": self._rdb,
        }
        if _is_index(entry) and self._media is not None:
            return self._media.read_index
        return next((decode for name, decode in kinds.items() if _is(entry, name)), read_all)

    def _dump(self, plain: BinaryIO) -> None:
        header = parse_header(cast(BufferedReader, plain).peek(HEADER_BYTES)[:_HEAD], "it")
        if header.version != self._manifest.facts.get("archive_version", header.version):
            raise Damaged(f"its header says version {header.version}, which was not so when it was made")
        wanted = dump_major(self._manifest.facts)
        program = fitting_pg_restore(wanted)
        if program is None:
            self._report.left_out.append(
                f"the dump was decrypted but not decoded: there is no pg_restore {wanted or ''} or newer on this "
                f"machine ({GET_TOOLS})".replace("  ", " ")
            )
            return
        self._job.log(f"$ pg_restore -f /dev/null  # {program.said}")
        ended = feed(program, plain, self._job)
        if ended.status == 0:
            self._tool(program.said)
        elif any(words in ended.all_said for words in _CANNOT):
            self._report.left_out.append(f"the dump was not decoded: {program.said} says {ended.line}")
        else:
            raise Damaged(f"{program.said} cannot read it: {ended.line}")

    def _rdb(self, plain: BinaryIO) -> None:
        from backends.assets.redis_rdb import RdbStream  # late: verifying other assets does without

        rdb = RdbStream(plain)
        checksum = RdbChecksum()
        server = fitting_redis(rdb.header.version)
        if server is None:
            self._job.log(f"no redis-check-rdb for format {rdb.header.version} here: header, end and checksum only")
            while data := rdb.read(256 * 1024):
                checksum.update(data)
        else:
            checker = checker_of(server)
            ended = feed(checker, rdb, self._job, checksum.update)
            if ended.status != 0:
                raise Damaged(f"{checker.said} finds it damaged: {ended.line}")
            self._tool(checker.said)
        rdb.finish()
        if not checksum.fits:
            raise Damaged("its checksum is not that of its content")

    def _tool(self, said: str) -> None:
        if said not in self._report.tools:
            self._report.tools.append(said)


def _is(entry: ObjectEntry, name: str) -> bool:
    return entry.name == name or entry.name.startswith((f"{name}.", f"{name}-"))


def _named(entry: ObjectEntry, sentence: str) -> str:
    name = clean(entry.name, 100)
    return sentence if name in sentence else f"{name}: {sentence}"
