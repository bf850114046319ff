"""Home and list feeds, built again from the database after Redis began anew."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from backends.mastodon.version import at_least
from backends.restore.base import Work
from backends.restore.plan import RedisChoice, RestoreRequest
from backends.restore.services_program import place_from, run

PROGRAM = "bin/tootctl"
_BAR = "Progress: |"
_BAR_WIDTH = 80 - len("Progress: ||")
_COUNT = re.compile(r"(?<![0-9/])([0-9]{1,9})/([0-9]{1,9})(?![0-9/])", re.ASCII)


def words(request: RestoreRequest, version: str) -> tuple[str, ...]:
    """The command. Feeds that came with the snapshot are left as they are where Mastodon can (4.4 on)."""
    kept = request.redis is RedisChoice.RESTORE and at_least(version, 4, 4)
    return (PROGRAM, "feeds", "build", *(("--skip-filled-timelines",) if kept else ()))


def build(work: Work, facts: Mapping[str, Any]) -> None:
    """Build the feeds; the step's progress is the program's own count of accounts.

    Raises:
        AssetFailed, Cancelled, ConnectionFailed: as `services_program.run`.
    """
    progress = _Progress(work)
    work.job.step("building the feeds", unit="accounts")
    run(work, place_from(facts["program"]), *(str(word) for word in facts["feeds"]), on_text=progress.take)


class _Progress:
    """Follows `17/42` in a progress bar that is written over itself, or a bar that only grows.

    Where its output is no terminal, ruby-progressbar leaves Mastodon's format with the counts aside and writes
    `Progress: |====` further and further, as wide as a terminal of 80 columns (lib/ruby-progressbar/outputs/non_tty.rb,
    calculators/length.rb).
    """

    def __init__(self, work: Work) -> None:
        self._job = work.job
        self._text = ""
        self._total = 0
        self._done = 0
        self._in_bar = False
        self._tail = ""
        """The end of what came, where the beginning of a bar may be."""

    def take(self, text: str) -> None:
        """More of the output."""
        begun = self._tail + text
        if self._in_bar or _BAR in begun:
            self._grow(text if self._in_bar else begun)
            return
        self._tail = begun[1 - len(_BAR) :]
        # The last word may go on in the next piece.
        whole, sign, rest = _cut(self._text + text)
        self._text = rest
        seen = last_count(whole + sign)
        if seen is None:
            return
        done, total = seen
        if total != self._total:
            self._total, self._done = total, 0
            self._job.step("building the feeds", total=total, unit="accounts")
        if done > self._done:
            self._job.advance(done - self._done)
            self._done = done

    def _grow(self, text: str) -> None:
        """More of a bar that only grows."""
        if not self._in_bar:
            self._in_bar = True
            self._job.step("building the feeds", total=_BAR_WIDTH, unit="steps")
            text = text.partition(_BAR)[2]
        grown = min(text.partition("|")[0].count("="), _BAR_WIDTH - self._done)
        if grown:
            self._job.advance(grown)
            self._done += grown


def _cut(text: str) -> tuple[str, str, str]:
    place = max(text.rfind(sign) for sign in " \r\n|")
    return text[: max(place, 0)], text[max(place, 0) : place + 1], text[place + 1 :][-200:]


def last_count(text: str) -> tuple[int, int] | None:
    """The last `done/total` in some output, when it makes sense; never raises."""
    for match in reversed(list(_COUNT.finditer(text))):
        done, total = int(match[1]), int(match[2])
        if done <= total and total:
            return done, total
    return None
