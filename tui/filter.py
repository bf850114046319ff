"""The filter's grammar: words that must all hold; `!word` turns one around, `field:word` looks in one place only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FIELDS = ("host", "asset", "risk", "state")


@dataclass(frozen=True, slots=True)
class Term:
    """One word of a filter; `field` is empty for any field."""

    word: str
    field: str = ""
    negated: bool = False

    def holds(self, values: Mapping[str, str]) -> bool:
        """Whether a row passes; values are lower case."""
        found = self.word in values.get(self.field, "") if self.field else any(self.word in v for v in values.values())
        return found != self.negated


def parse(text: str) -> tuple[Term, ...]:
    """Read a filter; an unfinished term (`host:`, `!`) is ignored while it is being typed."""
    terms = []
    for part in text.lower().split():
        negated = part.startswith("!")
        word = part[1:] if negated else part
        field, colon, rest = word.partition(":")
        if colon and field in FIELDS:
            word = rest
        else:
            field = ""
        if word:
            terms.append(Term(word, field, negated))
    return tuple(terms)


def matches(terms: tuple[Term, ...], values: Mapping[str, str]) -> bool:
    """Whether a row passes every term."""
    lowered = {name: value.lower() for name, value in values.items()}
    return all(term.holds(lowered) for term in terms)
