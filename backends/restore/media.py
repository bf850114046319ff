"""Media in a restore: what is missing or differs comes back, staged and checked; nothing newer is deleted."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, ClassVar

from backends.errors import AssetFailed, Damaged
from backends.model import Asset
from backends.progress import QuietJob
from backends.restore import media_place
from backends.restore.base import Action, Target
from backends.restore.media_compare import Tally, Verdict, compare
from backends.restore.media_host import Place, TookTooLong, amount, list_tree, names, place_from, size_of
from backends.restore.media_look import Site, elsewhere, is_root, look_at, owner_of, trouble
from backends.restore.media_source import index, subtree_of
from backends.restore.media_stage import TAR, fits, stage, unstage
from backends.restore.plan import Finding, Look, Phase, RestoreRequest, Space, StepInfo
from backends.restore.source import Source
from backends.untrusted import clean

_PATIENCE = 45.0
"""Seconds that a plan may spend on comparing."""
_MANY = 5000
_BYTES_A_SECOND = 40_000_000
_FILES_A_SECOND = 1500
_PLACED_A_SECOND = {True: 4000, False: 50}
"""With perl on the host, and with its shell alone."""
_REFRESH = "Afterwards `tootctl accounts refresh --all` and `tootctl media refresh --days 30 --force` fetch them again."
_ORPHANS = "Never run `tootctl media remove-orphans` against an older database: it deletes every newer file."


class MediaPart:
    """Uploads in a local tree."""

    asset: ClassVar[Asset | None] = Asset.MEDIA

    def look(self, request: RestoreRequest, target: Target, sources: Mapping[Asset, Source]) -> Look:
        """Compare the snapshot's index with the tree, within 45 seconds; a tree that takes longer is estimated."""
        place = target.installation.media
        if other := elsewhere(place, target):
            return other
        assert place is not None and place.path is not None  # noqa: S101, PT018 - `elsewhere` has seen to it
        source = sources[Asset.MEDIA]
        site = look_at(target, place.path)
        if blocked := trouble(site, target, place.path):
            return Look(findings=(blocked,))
        subtree_of(request.subtree)
        at = _place(request, target, source, site)
        try:
            tally = _tally(target, source, at)
        except Damaged as error:
            return Look(findings=(_finding("block", error.sentence, "Choose another snapshot or vault."),))
        except TookTooLong:
            return _too_large(source, at, site)
        return _told(target, source, at, site, tally)

    def actions(self, request: RestoreRequest, facts: Mapping[str, Any]) -> Sequence[Action]:
        """Stage beside, then place; files that the snapshot lacks go aside only when that was asked for."""
        at = place_from(facts)
        found = [_staging(at), _placing(at)]
        return [*found, _setting_aside(at)] if at.exact else found


def _place(request: RestoreRequest, target: Target, source: Source, site: Site) -> Place:
    return Place(
        root=site.said["real"],
        anchor=site.said["anchor"],
        beside=site.said["beside"],
        as_user=site.as_user,
        owner=owner_of(site),
        user=target.installation.user,
        keep_owners=is_root(site, target.connection),
        perl="perl" in site.said,
        include_cache=source.manifest.facts.get("cache_included") is True,
        subtree=subtree_of(request.subtree).decode("utf-8", "surrogateescape"),
        since=int(source.manifest.started_at.timestamp()) * 1_000_000_000,
        loosen=Asset.DATABASE in request.snapshots,
        exact=request.exact,
        mark=request.id,
    )


def _tally(target: Target, source: Source, at: Place) -> Tally:
    """What is missing and what differs. Raises `TookTooLong`, `Damaged`, `AssetFailed`."""
    until = time.monotonic() + _PATIENCE
    live = list_tree(target.connection, at, QuietJob(), until=until)
    if live.unreadable_count:
        shown = names(live.unreadable[:3], live.unreadable_count)
        raise AssetFailed(
            f"{amount(live.unreadable_count, 'directory')} of the media cannot be read: {shown}",
            "Connect as the user that owns the media, or set `become` for this host.",
        )
    tally = Tally()
    with closing(_entries(source, at)) as entries:
        for count, found in enumerate(compare(entries, live.drain())):
            tally.count(found, at.since)
            if count % 1000 == 0 and time.monotonic() > until:
                raise TookTooLong
    return tally


def _entries(source: Source, at: Place) -> Any:
    return index(source, at.subtree.encode("utf-8", "surrogateescape"))


def _told(target: Target, source: Source, at: Place, site: Site, tally: Tally) -> Look:
    come = tally.missing + tally.differing
    nothing = not (come or tally.modes or (tally.private and at.loosen) or (tally.extra and at.exact))
    findings = [*_blocks(target, at, site, tally), *_notes(source, at, site, tally)]
    known = place_from({**at.to_facts(), "files": come, "bytes": tally.size})
    return Look(
        facts={} if nothing else known.to_facts(),
        findings=tuple(findings),
        spaces=() if nothing else (_space(at, site, tally.room),),
        lost=tuple(_lost(at, tally)),
        untouched=tuple(_untouched(at, site, tally)),
    )


def _too_large(source: Source, at: Place, site: Site) -> Look:
    facts = source.manifest.facts
    files, size = _count(facts.get("files")), _count(facts.get("bytes"))
    note = _finding(
        "note",
        f"The media ({amount(files)}, {size_of(size)} in the snapshot) take longer than {_PATIENCE:.0f} s to compare: "
        "what is missing is found while staging.",
        "The time and the room shown are those of all of them.",
    )
    known = place_from({**at.to_facts(), "files": files, "bytes": size})
    return Look(
        facts=known.to_facts(),
        findings=(note, *_notes(source, at, site, Tally())),
        spaces=(_space(at, site, size),),
        untouched=tuple(_untouched(at, site, Tally())),
    )


def _blocks(target: Target, at: Place, site: Site, tally: Tally) -> Iterator[Finding]:
    host = target.connection.host
    if not tally.files and at.subtree:
        yield _finding(
            "block",
            f"The snapshot holds nothing below {clean(at.subtree, 200)}.",
            "Give a path relative to the media directory, for example accounts/avatars.",
        )
    room = site.room
    where = clean(at.beside, 200)
    if room is not None and not fits(tally.room, room[0]):
        yield _finding(
            "block",
            f"The media need {size_of(tally.room)} at {where} on {host}, and {size_of(room[0])} are free.",
            "Make room there, or restore a part with --path.",
        )
    if room is not None and room[1] is not None and tally.inodes > room[1]:
        yield _finding(
            "block",
            f"The media need {tally.inodes} inodes at {where} on {host}, and {room[1]} are free.",
            "Remove files there (df -i shows it), or restore a part with --path.",
        )
    if tally.barred:
        shown = names(tally.names[Verdict.BARRED], tally.barred)
        yield _finding(
            "block",
            f"{amount(tally.barred)} cannot be placed, a link or file is where a directory should be: {shown}.",
            "Put a directory in its place (a bind mount keeps it on another disk).",
            accept="links",
        )


def _notes(source: Source, at: Place, site: Site, tally: Tally) -> Iterator[Finding]:
    come = tally.missing + tally.differing
    if tally.files:
        text = f"{tally.files - come - tally.barred} of {amount(tally.files)} are there already"
        yield _finding("ok", f"{text}; {come} come back ({size_of(tally.size)})." if come else f"{text}.")
    if site.state == "absent":
        yield _finding(
            "note",
            f"{clean(at.root, 200)} is not there and is made.",
            "When a disk should be mounted there, mount it first.",
        )
    if not at.include_cache and "cache" not in site.said and not at.subtree:
        yield _finding(
            "note",
            "Neither the snapshot nor the target has cache/: files of other servers will be missing.",
            f"{_REFRESH} {_ORPHANS}",
        )
    elif tally.newer:
        yield _finding("note", f"{amount(tally.newer)} newer than the snapshot are on the target.", _ORPHANS)
    if source.manifest.in_part:
        said = "; ".join(clean(text, 200) for text in source.manifest.warnings[:2])
        yield _finding("note", f"The snapshot was made in part: {said or 'some files were left out'}.")
    if tally.private and not at.loosen:
        shown = names(tally.names[Verdict.PRIVATE], tally.private)
        yield _finding(
            "note",
            f"{amount(tally.private)} closed to others stay so, although the snapshot has them open: {shown}.",
            "Mastodon closes moderated media. They are opened when the database is restored with them.",
        )
    if tally.outside:
        shown = names(tally.names["outside"], tally.outside)
        yield _finding("note", f"Symbolic links of the snapshot lead out of the media directory: {shown}.")
    if not at.perl and come > _MANY:
        minutes = come / _PLACED_A_SECOND[False] / 60
        yield _finding("note", f"The target has no perl: placing the files takes about {minutes:.0f} minutes.")
    if not at.keep_owners and come:
        yield _finding("note", f"Files are restored as {site.reader}: all of them will belong to that user.")


def _lost(at: Place, tally: Tally) -> Iterator[str]:
    if tally.differing:
        yield f"{amount(tally.differing)} of the media that differ in size (kept aside)"
    if at.exact and tally.extra:
        yield f"{amount(tally.extra)} of the media that the snapshot lacks, {size_of(tally.extra_bytes)} (kept aside)"


def _untouched(at: Place, site: Site, tally: Tally) -> Iterator[str]:
    if tally.extra and not at.exact:
        yield f"{amount(tally.extra)} of the media that the snapshot lacks"
    if not at.include_cache and "cache" in site.said:
        yield "cache/ of the media"
    if at.subtree:
        yield f"all media outside {clean(at.subtree, 200)}"


def _staging(at: Place) -> Action:
    owner = "--same-owner" if at.keep_owners else "--no-same-owner"
    info = StepInfo(
        id="media.stage",
        asset=Asset.MEDIA,
        phase=Phase.STAGE,
        name="stage media",
        what=f"{amount(at.files)}, {size_of(at.bytes)}, checked, into {clean(at.staging, 200)}; the site stays up",
        commands=(f"cd {_quoted(at.staging)}/tree && {TAR} {owner}",),
        seconds=round(1 + at.files / _FILES_A_SECOND + at.bytes / _BYTES_A_SECOND, 1),
    )
    return Action(
        info=info,
        do=lambda work: stage(work, at),
        undo=lambda work: unstage(work, at),
        forget=lambda work: media_place.forget(work, at),
    )


def _placing(at: Place) -> Action:
    staged, root, before = _quoted(at.staging), _quoted(at.root), _quoted(at.before)
    info = StepInfo(
        id="media.place",
        asset=Asset.MEDIA,
        phase=Phase.PLACE,
        name="place media",
        what=f"each staged file gets its name below {clean(at.root, 200)}; one that differs is kept aside",
        commands=(
            f"# for each FILE that differs: ln {root}/FILE {before}/FILE; for a mode that differs: chmod",
            f"# for each FILE: ln {staged}/tree/FILE {root}/FILE && rm {staged}/tree/FILE",
        ),
        seconds=round(0.5 + at.files / _PLACED_A_SECOND[at.perl], 1),
    )
    return Action(
        info=info, do=lambda work: media_place.place(work, at), undo=lambda work: media_place.unplace(work, at)
    )


def _setting_aside(at: Place) -> Action:
    info = StepInfo(
        id="media.exact",
        asset=Asset.MEDIA,
        phase=Phase.PLACE,
        name="set media aside",
        what="files that the snapshot lacks are moved aside, none is deleted",
        commands=(f"# for each FILE: mv {_quoted(at.root)}/FILE {_quoted(at.before)}/FILE",),
        seconds=1.0,
    )
    return Action(
        info=info, do=lambda work: media_place.set_aside(work, at), undo=lambda work: media_place.put_back(work, at)
    )


def _space(at: Place, site: Site, need: int) -> Space:
    room = site.room
    return Space(what="media", path=clean(at.beside, 200), need=need, free=room[0] if room else None)


def _quoted(path: str) -> str:
    return shlex.quote(clean(path, 300))


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _finding(level: Any, text: str, way_out: str = "", accept: str = "") -> Finding:
    return Finding(level=level, text=text, way_out=way_out, asset=Asset.MEDIA, accept=accept)


PART = MediaPart()
