"""With which encoding and collation the new database is made: the dump's where the target can, else the nearest."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from backends.restore.database_names import literal

_ALWAYS = {"C", "POSIX"}
_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}

# One JSON value: how the live database and template0 are made, and which locales are known to work here.
LOCALES = """
SELECT jsonb_build_object(
  'known', (SELECT coalesce(jsonb_agg(DISTINCT found.name), '[]') FROM (
     SELECT collcollate::text AS name FROM pg_collation WHERE collprovider = 'c' AND collcollate <> ''
     UNION SELECT datcollate::text FROM pg_database UNION SELECT datctype::text FROM pg_database) found),
  'icu', (SELECT count(*) FROM pg_collation WHERE collprovider = 'i') > 1,
  'template', (SELECT jsonb_build_object('encoding', pg_encoding_to_char(encoding), 'collate', datcollate,
     'ctype', datctype) FROM pg_database WHERE datname = 'template0'))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Locale:
    """What `CREATE DATABASE` takes. `provider` is libc, icu or builtin; `name` the locale of the last two."""

    encoding: str
    collate: str
    ctype: str
    provider: str = "libc"
    name: str = ""

    @property
    def words(self) -> str:
        """For people."""
        which = self.collate if self.collate == self.ctype else f"{self.collate}/{self.ctype}"
        return f"{self.encoding}, {which}" + (f", {self.provider} {self.name}" if self.provider != "libc" else "")

    def options(self, server_version_num: int) -> str:
        """The options of CREATE DATABASE, beginning with a space."""
        made = f" ENCODING {literal(self.encoding)} LC_COLLATE {literal(self.collate)} LC_CTYPE {literal(self.ctype)}"
        # Before 15 there is only libc, and the word is not known.
        if server_version_num < 150000:
            return made
        if self.provider == "icu":
            return f"{made} LOCALE_PROVIDER icu ICU_LOCALE {literal(self.name)}"
        if self.provider == "builtin":
            return f"{made} LOCALE_PROVIDER builtin BUILTIN_LOCALE {literal(self.name)}"
        return f"{made} LOCALE_PROVIDER libc"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The locale to use, and what is to be said when it is not the dump's."""

    locale: Locale
    note: str = ""
    way_out: str = ""


def locale_of(facts: Mapping[str, Any]) -> Locale | None:
    """The locale that a manifest or the catalogue tells of; None when it does not."""
    encoding, collate = _word(facts.get("encoding")), _word(facts.get("collate"))
    if not encoding or not collate:
        return None
    return Locale(
        encoding=encoding,
        collate=collate,
        ctype=_word(facts.get("ctype")) or collate,
        provider=_PROVIDERS.get(_word(facts.get("locale_provider")), "libc"),
        name=_word(facts.get("locale")),
    )


def choose_locale(
    dump: Locale | None, live: Locale | None, answer: Mapping[str, Any], server_version_num: int
) -> Chosen:
    """The dump's own locale where the target has it, else the live database's, template0's, C.UTF-8 or C.

    Args:
        dump: as the manifest says.
        live: of the database that is there now.
        answer: of `LOCALES`.
        server_version_num: of the target.
    """
    names = answer.get("known")
    known = {_plain(str(name)) for name in names} if isinstance(names, list) else set()
    template = locale_of(answer.get("template") or {})
    fallbacks = [live, template, *(Locale(encoding="UTF8", collate=name, ctype=name) for name in ("C.UTF-8", "C"))]
    if dump is not None and (dump == live or _can(dump, known, answer, server_version_num)):
        return Chosen(dump)
    encoding = dump.encoding if dump else "UTF8"
    for locale in fallbacks:
        if locale is not None and _suits(locale, encoding) and _can(locale, known, answer, server_version_num):
            made = Locale(
                encoding=encoding,
                collate=locale.collate,
                ctype=locale.ctype,
                provider=locale.provider,
                name=locale.name,
            )
            return Chosen(made, *_said(dump, made))
    made = Locale(encoding=encoding, collate="C", ctype="C")
    return Chosen(made, *_said(dump, made))


def _said(dump: Locale | None, made: Locale) -> tuple[str, str]:
    if dump is None:
        return "", ""
    return (
        f"the snapshot's collation ({dump.words}) is not known to the target's PostgreSQL; {made.words} is used, which"
        " may sort names differently",
        f"To have it, make the locale first (locale-gen {dump.collate} on Debian), restart PostgreSQL there and run"
        " SELECT pg_import_system_collations('pg_catalog') as its superuser.",
    )


def _can(locale: Locale, known: Collection[str], answer: Mapping[str, Any], server_version_num: int) -> bool:
    libc = all(name in _ALWAYS or _plain(name) in known for name in (locale.collate, locale.ctype))
    if locale.provider == "icu":
        return libc and bool(locale.name) and server_version_num >= 150000 and bool(answer.get("icu"))
    if locale.provider == "builtin":
        return libc and bool(locale.name) and server_version_num >= 170000
    return libc


def _suits(locale: Locale, encoding: str) -> bool:
    """Whether a locale can serve an encoding; only what is surely right (C with all, UTF-8 ones with UTF8)."""
    codesets = {_plain(name).partition(".")[2] for name in (locale.collate, locale.ctype) if name not in _ALWAYS}
    return not codesets or (encoding == "UTF8" and codesets == {"utf8"}) or locale.encoding == encoding


def _plain(name: str) -> str:
    """`en_US.UTF-8` and `en_US.utf8` are one to the C library."""
    language, dot, codeset = name.partition(".")
    codeset, at, modifier = codeset.partition("@")
    return language + dot + re.sub(r"[^a-z0-9]", "", codeset.lower()) + at + modifier


def _word(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return text if len(text) <= 100 and text.isprintable() else ""
