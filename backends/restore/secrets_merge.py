"""Settings that belong to a machine keep that machine's values when another machine's settings come to it.

The restored file is changed assignment by assignment; everything else in it stays as it is, byte by byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from backends.errors import AssetFailed, DiscoveryFailed
from backends.mastodon import env_file, systemd
from backends.model import Secret
from backends.untrusted import clean

_BOUND = re.compile(
    r"(?:REPLICA_)?DB_(?:HOST|PORT|NAME|USER|PASS|SSLMODE)|(?:REPLICA_)?DATABASE_URL|(?:REPLICA_)?PREPARED_STATEMENTS"
    r"|(?:SIDEKIQ_|CACHE_)?REDIS_(?!NAMESPACE$)[A-Z0-9_]+|PAPERCLIP_ROOT_PATH",
    re.ASCII,
)
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*", re.ASCII)
Spans = Callable[[bytes], list[tuple[str, int, int]]]


def machine_bound(name: str) -> bool:
    """Whether a setting says where a machine has its database, Redis and media, and not what the Mastodon is.

    `REDIS_NAMESPACE` is a part of the data's names.
    """
    return _BOUND.fullmatch(name) is not None


def merge(content: bytes, own: Mapping[str, Secret], *, form: str = "dotenv", add: bool = True) -> bytes:
    """A settings file in which all machine-bound settings are a machine's own.

    Args:
        content: the file as it was stored.
        own: the machine's settings; of the machine-bound ones those that are not in here are taken out.
        form: `dotenv` or `systemd`; files of another format are left as they are.
        add: append those that the file does not name.

    Raises:
        AssetFailed: the file is such that a change in one place changes what stands in another, or a value cannot be
            written into it.
    """
    if form not in {"dotenv", "systemd"}:
        return content
    spans: Spans = env_file.assignments if form == "dotenv" else systemd.assignments
    wanted = {name: value for name, value in own.items() if machine_bound(name)}
    pieces: list[bytes] = []
    last = 0
    seen: set[str] = set()
    for name, begin, end in spans(content):
        if not machine_bound(name):
            continue
        pieces.append(content[last:begin])
        if name in wanted:
            pieces.append(statement(name, wanted[name], form))
            last = end
        else:
            last = _line_after(content, end)
        seen.add(name)
    merged = b"".join((*pieces, content[last:]))
    if add:
        merged = _append(merged, [statement(name, wanted[name], form) for name in wanted if name not in seen])
    _require(content, merged, wanted if add else {name: wanted[name] for name in wanted if name in seen}, form, spans)
    return merged


def _line_after(content: bytes, end: int) -> int:
    for line_end in (b"\r\n", b"\n", b"\r"):
        if content.startswith(line_end, end):
            return end + len(line_end)
    return end


def _append(content: bytes, statements: Sequence[bytes]) -> bytes:
    if not statements:
        return content
    begin = b"" if not content or content.endswith((b"\n", b"\r")) else b"\n"
    return content + begin + b"".join(each + b"\n" for each in statements)


def statement(name: str, value: Secret, form: str = "dotenv") -> bytes:
    """An assignment that gives exactly this value. Raises `AssetFailed` when there is no way to write it."""
    text = value.reveal()
    doubled = re.sub(r'([\\"$`])', r"\\\1", text)
    ways = [text] if _PLAIN.fullmatch(text) else []
    for way in (*ways, f"'{text}'", f'"{doubled}"'):
        line = f"{name}={way}".encode("utf-8", "surrogatepass")
        if _values(line + b"\n", form) == {name: text}:
            return line
    raise AssetFailed(
        f"the value of {clean(name, 80)} on the target cannot be written into a settings file.",
        "Give it a value without quotes and line breaks.",
    )


def _values(content: bytes, form: str) -> dict[str, str]:
    try:
        read = env_file.parse(content) if form == "dotenv" else systemd.parse_environment_file(content, name="")
    except DiscoveryFailed as error:
        raise AssetFailed(error.sentence, error.next_step) from None
    if read.computed:
        return {}
    return {name: value.reveal() for name, value in read.values.items()}


def _require(content: bytes, merged: bytes, wanted: Mapping[str, Secret], form: str, spans: Spans) -> None:
    """Raise unless the other assignments are what they were, and the machine's own are as wanted."""
    others = [
        [(name, each[begin:end]) for name, begin, end in spans(each) if not machine_bound(name)]
        for each in (content, merged)
    ]
    own = {name: merged[begin:end] for name, begin, end in spans(merged) if machine_bound(name)}
    if others[0] != others[1] or own != {name: statement(name, value, form) for name, value in wanted.items()}:
        raise AssetFailed(
            "the settings in the snapshot cannot be joined with those of the target: a quote is not closed in them.",
            "Restore the settings as files here, correct them, and put them there by hand.",
        )
