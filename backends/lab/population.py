"""Who and what lives on a lab host: accounts, users and media, made from a seed and shared by database and tree."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

_NAMES = (
    "ada amal anouk bela carla chidi dara edda elif fatou finn gia hana ines ivo jo kaja keiko lars lena mads maja "
    "mila nils noor oda omar paul quinn rasa rosa sami sena tove ulla vera wim xenia yara zoe"
)
NAMES = tuple(_NAMES.split())
REMOTES = ("fosstodon.example", "hachyderm.example", "chaos.example", "piaille.example", "mas.example", "bsd.example")
EPOCH = datetime(2026, 11, 1, 9, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Person:
    """One account; `user_id` only for those who log in here."""

    id: int
    username: str
    domain: str | None
    user_id: int | None = None
    avatar: str | None = None
    otp_secret: str | None = None
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Medium:
    """One media attachment and its file."""

    id: int
    account_id: int
    file_name: str
    content_type: str
    bytes: int
    remote_domain: str | None = None
    hidden: bool = False
    """Its account is suspended: Mastodon takes the file's public modes away."""


@dataclass(frozen=True, slots=True)
class Population:
    """All of it."""

    people: tuple[Person, ...]
    media: tuple[Medium, ...]
    statuses: int
    local: tuple[Person, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "local", tuple(person for person in self.people if person.domain is None))


def snowflake(moment: datetime, tail: int) -> int:
    """An id as Mastodon makes it: milliseconds since 1970 and 16 bits."""
    return (int(moment.timestamp() * 1000) << 16) | (tail & 0xFFFF)


def partition(number: int) -> str:
    """The directories of an id: groups of three digits, 6 for snowflakes (Paperclip's `:id_partition`)."""
    digits = str(number)
    width = 9 if len(digits) <= 9 else 18
    digits = digits.zfill(width)
    return "/".join(digits[start : start + 3] for start in range(0, width, 3))


def populate(seed: int, *, people: int, remote: int, media: int, cached: int, statuses: int) -> Population:
    """Make a population; the same arguments give the same one."""
    dice = random.Random(seed)  # noqa: S311
    everyone = [_person(dice, number) for number in range(people)]
    everyone += [_stranger(dice, number) for number in range(remote)]
    local = [person for person in everyone if person.domain is None]
    strangers = [person for person in everyone if person.domain]
    attachments = [_medium(dice, number, local) for number in range(media)]
    if strangers:
        attachments += [_medium(dice, media + number, strangers) for number in range(cached)]
    return Population(tuple(everyone), tuple(attachments), statuses)


def _person(dice: random.Random, number: int) -> Person:
    base = NAMES[number % len(NAMES)]
    return Person(
        # The first accounts of an old instance have plain serial ids.
        id=number + 1 if number < 3 else snowflake(EPOCH - timedelta(days=300 - number % 290), dice.getrandbits(16)),
        username=base if number < len(NAMES) else f"{base}{number}",
        domain=None,
        user_id=number + 1,
        avatar=f"{dice.getrandbits(64):016x}.png" if dice.random() < 0.8 else None,
        otp_secret=base64.b32encode(dice.randbytes(20)).decode() if number % 3 == 0 else None,
        suspended=number == 4,
    )


def _stranger(dice: random.Random, number: int) -> Person:
    return Person(
        id=snowflake(EPOCH - timedelta(hours=number % 6000), 0x8000 + number),
        username=f"{NAMES[dice.randrange(len(NAMES))]}_{number}",
        domain=REMOTES[dice.randrange(len(REMOTES))],
        avatar=f"{dice.getrandbits(64):016x}.jpg" if number % 4 == 0 else None,
    )


def _medium(dice: random.Random, number: int, owners: list[Person]) -> Medium:
    owner = owners[dice.randrange(len(owners))]
    kind, ending, size = dice.choice(
        [("image/jpeg", "jpeg", 90_000), ("image/png", "png", 140_000), ("video/mp4", "mp4", 600_000)]
        if number % 9 == 0
        else [("image/jpeg", "jpeg", 60_000), ("image/png", "png", 90_000), ("image/webp", "webp", 30_000)]
    )
    return Medium(
        id=snowflake(EPOCH - timedelta(hours=number % 7000), dice.getrandbits(16)),
        account_id=owner.id,
        file_name=f"{dice.getrandbits(64):016x}.{ending}",
        content_type=kind,
        bytes=max(2000, int(dice.gauss(size, size / 3))),
        remote_domain=owner.domain,
        hidden=owner.suspended,
    )
