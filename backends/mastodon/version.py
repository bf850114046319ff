"""Which Mastodon it is, read from `lib/mastodon/version.rb` without running Ruby."""

from __future__ import annotations

import re

from backends.untrusted import clean

_NUMBER = r"def\s+{}\b[^\n]*\n\s*(\d{{1,4}})\b"
_PRERELEASE = re.compile(r"def\s+(?:default_prerelease|flags)\b[^\n]*\n\s*['\"]([A-Za-z0-9.+-]{0,40})['\"]")


def parse_version(content: bytes) -> str:
    """`4.6.3` or `4.7.0-alpha.2`; empty when the file does not say."""
    text = content[:65536].decode("utf-8", "replace")
    numbers = [re.search(_NUMBER.format(part), text) for part in ("major", "minor", "patch")]
    if numbers[0] is None or numbers[1] is None:
        return ""
    version = ".".join(str(int(number[1])) for number in numbers if number)
    prerelease = _PRERELEASE.search(text)
    suffix = prerelease[1].lstrip("-") if prerelease else ""
    return clean(f"{version}-{suffix}" if suffix else version, 60)


def at_least(version: str, major: int, minor: int) -> bool | None:
    """Whether a version is that release or a later one, its pre-releases included; None when it is unknown."""
    match = re.match(r"(\d{1,4})\.(\d{1,4})", version)
    return (int(match[1]), int(match[2])) >= (major, minor) if match else None
