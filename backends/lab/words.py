"""Text that reads and compresses like posts: words as frequent as in a language, in sentences."""

from __future__ import annotations

import itertools
import random

CHUNK = 2000
_SYLLABLES = (
    "a al an ar ba be bi bo bra ca ce chi co cra da de di do dra e el en er fa fe fi flo ga ge gi go gra ha he hi ho "
    "i il in is ja jo ka ke ki ko kra la le li lo lu ma me mi mo mu na ne ni no nu o ol on or pa pe pi plo po pra qua "
    "ra re ri ro ru sa se shi so sta ste sti sto su ta te ti to tra tu u ul un ur va ve vi vo wa we wi wo ya ye yo za"
)
_PUNCTUATION = (" ", " ", " ", " ", " ", " ", ", ", ". ", " ", " ", " #", " @", "? ", "! ")


def vocabulary(dice: random.Random, size: int = 6000) -> list[str]:
    """Distinct words, the short ones first, as the frequent words of a language are short."""
    found: dict[str, None] = {}
    syllables = _SYLLABLES.split()
    while len(found) < size:
        found.setdefault("".join(dice.choices(syllables, k=1 + min(4, len(found) // 60 and dice.randrange(1, 5)))))
    return list(found)


def corpus(seed: int, chunks: int) -> list[str]:
    """`chunks` texts of `CHUNK` characters; the nth word is as likely as 1/n (Zipf)."""
    dice = random.Random(seed)  # noqa: S311
    words = vocabulary(dice)
    weights = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(len(words))))
    texts = []
    for _ in range(chunks):
        chosen = dice.choices(words, cum_weights=weights, k=CHUNK // 5)
        joints = dice.choices(_PUNCTUATION, k=len(chosen))
        texts.append("".join(map("".join, zip(chosen, joints, strict=True)))[:CHUNK])
    return texts
