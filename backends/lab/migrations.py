"""The migrations that a lab's Mastodon knows: the same for every host of a version, in its code and its database."""

from __future__ import annotations

import itertools
import random
from functools import cache

HEADS = {"4.5": "20251027162018", "4.6": "20260513091042", "4.7": "20260702144128"}
"""The newest of each release, as in Mastodon's own db/schema.rb."""
_VERBS = ("create", "add_index_to", "add_uri_to", "backfill", "change_column_of", "remove_unused_index_from")
_THINGS = ("accounts", "statuses", "users", "media_attachments", "follows", "keypairs", "mentions", "status_stats")
_OLD, _BETWEEN = 60, 5


@cache
def all_migrations() -> dict[str, str]:
    """Every migration with its file's name, oldest first: `20251027162018_add_uri_to_accounts.rb`."""
    dice = random.Random(45)  # noqa: S311
    versions = {_moment(dice, 2016, 2024) for _ in range(_OLD)}
    for first, last in itertools.pairwise(HEADS.values()):
        later = (str(dice.randrange(int(first[:8]) + 1, int(last[:8]))) for _ in range(_BETWEEN * 40))
        days = [day for day in later if 1 <= int(day[4:6]) <= 12 and 1 <= int(day[6:]) <= 28]
        versions |= {f"{day}{_clock(dice)}" for day in days[:_BETWEEN]}
    versions |= set(HEADS.values())
    return {each: f"{each}_{dice.choice(_VERBS)}_{dice.choice(_THINGS)}.rb" for each in sorted(versions)}


def migrations(version: str) -> dict[str, str]:
    """Those that Mastodon `version` (`4.6.5`) has."""
    head = HEADS[".".join(version.split(".")[:2])]
    return {each: name for each, name in all_migrations().items() if each <= head}


def _moment(dice: random.Random, first: int, last: int) -> str:
    year, month, day = dice.randint(first, last), dice.randint(1, 12), dice.randint(1, 28)
    return f"{year}{month:02d}{day:02d}{_clock(dice)}"


def _clock(dice: random.Random) -> str:
    return f"{dice.randrange(24):02d}{dice.randrange(60):02d}{dice.randrange(60):02d}"
