"""`bin/tootctl` of a lab host: `version` and `feeds build`, really carried out."""

from __future__ import annotations

import os
import sys
import time

from backends.lab.programs.settings import read_settings
from backends.lab.programs.wire import Database, Redis

_PEOPLE = "SELECT account_id FROM users ORDER BY id"
_ONE = "SELECT id FROM accounts WHERE domain IS NULL AND username = '{}'"
_FEED = """
SELECT s.id FROM follows f JOIN statuses s ON s.account_id = f.target_account_id
WHERE f.account_id = {} ORDER BY s.id DESC LIMIT 800
"""
_SECONDS_EACH = 0.02
"""A real feed takes longer than the lab's few rows would."""
_WIDTH = 80


class ProgressBar:
    """ruby-progressbar with Mastodon's format (lib/mastodon/cli/progress_helper.rb): `%c/%u |%b%i| %e`.

    Where stdout is no terminal it takes no notice of that format and only ever adds to `Progress: |===|`
    (ruby-progressbar, lib/ruby-progressbar/outputs/non_tty.rb).
    """

    def __init__(self, total: int) -> None:
        self._total, self._done, self._shown = total, 0, ""
        self._began = time.monotonic()
        self._show()

    def increment(self) -> None:
        """One more is done."""
        self._done += 1
        self._show()

    def _show(self) -> None:
        over = self._done >= self._total
        if sys.stdout.isatty():
            left = (time.monotonic() - self._began) / max(1, self._done) * (self._total - self._done)
            eta = f"{'Time' if over else ' ETA'}: 00:{int(left) // 60:02d}:{int(left) % 60:02d}"
            bar = self._bar(_WIDTH - len(f"{self._done}/{self._total} || {eta}"))
            sys.stdout.write(f"{self._done}/{self._total} |{bar}| {eta}" + ("\n" if over else "\r"))
        else:
            text = f"Progress: |{self._bar(_WIDTH - len('Progress: ||')).rstrip()}" + ("|\n" if over else "")
            sys.stdout.write(text[len(self._shown) :])
            self._shown = text
        sys.stdout.flush()

    def _bar(self, width: int) -> str:
        return ("=" * (width * self._done // max(1, self._total)) if self._total else "=" * width).ljust(width)


def build_feeds(root: str, words: list[str]) -> int:
    """Fill one home feed or all of them from the database."""
    values = read_settings(root)
    database, redis = Database(values, "tootctl"), Redis(values)
    names = [word for word in words if not word.startswith("-")]
    if names and "--all" not in words:
        people = database.column(_ONE.format(names[0].replace("'", "''")))
        if not people:
            sys.stderr.write("No such account\n")
            return 1
        _build(database, redis, people[0])
        sys.stdout.write("OK \n")
        return 0
    people = database.column(_PEOPLE)
    progress = ProgressBar(len(people))
    for person in people:
        if "--skip-filled-timelines" not in words or redis.call("ZCARD", f"feed:home:{person}") == "0":
            _build(database, redis, person)
            time.sleep(_SECONDS_EACH)
        progress.increment()
    sys.stdout.write(f"Regenerated feeds for {len(people)} accounts \n")
    return 0


def _build(database: Database, redis: Redis, person: str) -> None:
    posts = database.column(_FEED.format(int(person)))
    redis.call("DEL", f"feed:home:{person}")
    if posts:
        redis.call("ZADD", f"feed:home:{person}", *(word for post in posts for word in (post, post)))


def main(root: str, version: str, *words: str) -> int:
    """Carry out one command line and return its exit status."""
    if words[:1] in (("version",), ("--version",)):
        sys.stdout.write(f"{version}\n")
        return 0
    if words[:2] != ("feeds", "build"):
        sys.stderr.write(f'Could not find command "{" ".join(words)}".\n')
        return 1
    if os.environ.get("RAILS_ENV") != "production":
        sys.stderr.write("Could not find the gems of the development environment; set RAILS_ENV=production\n")
        return 1
    try:
        return build_feeds(root, list(words[2:]))
    except OSError as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
