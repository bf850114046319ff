"""Which migrations Mastodon's code on the target knows, against the newest that the dump has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from backends.connection.base import Command, Connection, sh
from backends.errors import BecomeRefused, CommandFailed
from backends.model import Asset
from backends.restore.base import Target
from backends.restore.plan import Finding
from backends.untrusted import clean

_MARK = "mastovault-migration"
_SEEN = f"{_MARK} seen"
_LIST = r"""
mark=$1
[ -d "$2" ] && [ -x "$2" ] || exit 3
printf '%s seen\n' "$mark"
for dir in "$2/db/migrate" "$2/db/post_migrate"; do
  [ -d "$dir" ] || continue
  [ -r "$dir" ] || exit 3
  for file in "$dir"/*.rb; do printf '%s %s\n' "$mark" "${file##*/}"; done
done
"""


def newest_migration(connection: Connection, target: Target) -> str:
    """The newest migration in the code, for example `20260702144128`; empty when the code cannot be read.

    Raises:
        ConnectionFailed: the connection is gone.
    """
    install = target.installation
    for user in dict.fromkeys((None, install.user or None, target.root)):
        as_user = None if user == connection.login_user else user
        try:
            done = connection.run(Command(sh(_LIST, _MARK, install.root), as_user=as_user, env={"LC_ALL": "C"}))
        except (BecomeRefused, CommandFailed):
            continue
        if done.status == 0 and _SEEN in done.text.splitlines():
            return parse_migrations(done.text)
    return ""


def parse_migrations(text: str) -> str:
    """The newest of the listed file names; empty when there is none."""
    found = re.findall(rf"^{_MARK} ([0-9]{{14}})_[^/\n]*\.rb$", text, re.MULTILINE)
    return max(found, default="")


def judge_code(facts: Mapping[str, Any], newest: str, version: str) -> tuple[list[Finding], bool]:
    """Whether the code fits the dump, and whether migrations must run before the start.

    Args:
        facts: of the manifest.
        newest: migration in the code; empty when unknown, and then the versions are compared.
        version: of Mastodon on the target; empty when unknown.
    """
    migrations = facts.get("migrations")
    head = str(migrations.get("head") or "") if isinstance(migrations, dict) else ""
    made_by = clean(str(facts.get("mastodon_version") or ""), 60)
    way_out = f"Check out v{made_by} there first." if made_by else "Check out the version that the dump is of first."
    if re.fullmatch(r"[0-9]{14}", head) and newest:
        if newest < head:
            text = (
                f"Mastodon's code on the target{_in_words(version)} is older than the dump: its newest migration is"
                f" {newest}, the dump's {head}"
            )
            return [_finding("block", text, way_out)], False
        if newest > head:
            text = f"the code on the target{_in_words(version)} is newer than the dump: rails db:migrate runs before"
            return [_finding("note", f"{text} the start", "")], True
        return [_finding("ok", f"the code on the target{_in_words(version)} is of the dump's own schema", "")], False
    return _by_version(made_by, version, way_out)


def _by_version(made_by: str, version: str, way_out: str) -> tuple[list[Finding], bool]:
    there, dumped = _numbers(version), _numbers(made_by)
    if not there or not dumped:
        text = "whether Mastodon's code on the target fits the dump could not be found out"
        return [_finding("note", text, way_out if made_by else "")], False
    if there < dumped:
        text = f"Mastodon {clean(version, 60)} on the target is older than the dump, which is of {made_by}"
        return [_finding("block", text, way_out)], False
    if there > dumped:
        text = f"Mastodon {clean(version, 60)} on the target is newer than the dump ({made_by}): rails db:migrate runs"
        return [_finding("note", f"{text} before the start", "")], True
    return [_finding("ok", f"Mastodon {clean(version, 60)} on the target is the dump's own version", "")], False


def _finding(level: Any, text: str, way_out: str) -> Finding:
    return Finding(level=level, text=text, way_out=way_out, asset=Asset.DATABASE)


def _in_words(version: str) -> str:
    return f" ({clean(version, 60)})" if version else ""


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,4}))?", version)
    return tuple(int(part or 0) for part in match.groups()) if match else ()
