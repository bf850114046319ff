"""Each host's files: Mastodon's code as far as it is looked at, its media, and the programs on its PATH."""

from __future__ import annotations

import os
import random
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import backends
from backends.lab.fleet_plan import HostPlan
from backends.lab.migrations import migrations
from backends.lab.population import Population, partition

# These come from the lab itself, or must not be found: they would show the machine that the lab runs on.
_OWN: tuple[str, ...] = (
    *("docker", "podman", "nerdctl", "kubectl", "systemctl", "journalctl", "pg_", "psql", "postgres", "createdb"),
    *("dropdb", "createuser", "dropuser", "initdb", "vacuumdb", "reindexdb", "clusterdb", "redis-", "valkey-"),
)
_BUNDLE = """\
#!/bin/sh
# bundle exec PROGRAM ARGUMENTS: the programs are those of the directory
[ "$1" = exec ] || exit 1
program=${2##*/}; shift 2
exec "./bin/$program" "$@"
"""
_SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")
_IMAGE = {"png": b"\x89PNG\r\n\x1a\n", "webp": b"RIFF\x00\x00\x00\x00WEBPVP8 ", "mp4": b"\x00\x00\x00\x18ftypmp42"}

_VERSION = """\
# frozen_string_literal: true

module Mastodon
  module Version
    module_function

    def major
      {0}
    end

    def minor
      {1}
    end

    def patch
      {2}
    end

    def default_prerelease
      ''
    end

    def prerelease
      version_configuration[:prerelease].presence || default_prerelease
    end

    def build_metadata
      version_configuration[:metadata]
    end

    def to_a
      [major, minor, patch].compact
    end

    def to_s
      components = [to_a.join('.')]
      components << "-#{{prerelease}}" if prerelease.present?
      components << "+#{{build_metadata}}" if build_metadata.present?
      components.join
    end
  end
end
"""


def make_tools(directory: Path) -> None:
    """Fill a directory with links to this machine's programs, without those that a lab host brings itself."""
    directory.mkdir()
    for place in _SYSTEM_PATH:
        try:
            names = sorted(os.listdir(place))  # noqa: PTH208
        except OSError:
            continue
        for name in names:
            link = directory / name
            if not name.startswith(_OWN) and not link.is_symlink():
                link.symlink_to(Path(place, name))


def make_programs(directory: Path, home: Path, host: str, *, postgres: Path, redis: Path, control: Path) -> None:
    """The host's own programs: the lab's PostgreSQL and Redis clients, systemctl for its units, bundler."""
    directory.mkdir(parents=True)
    for name in ("psql", "pg_dump", "pg_dumpall", "pg_restore", "pg_isready", "createdb", "dropdb", "vacuumdb"):
        (directory / name).symlink_to(postgres / name)
    for name in ("redis-cli", "redis-server", "redis-check-rdb", "redis-check-aof"):
        # The checks are the server under another name (redis, src/server.c: main).
        (directory / name).symlink_to(redis / ("redis-cli" if name == "redis-cli" else "redis-server"))
    _python(directory / "systemctl", "systemctl", str(control), host)
    (home / ".rbenv/shims").mkdir(parents=True)
    bundle = home / ".rbenv/shims/bundle"
    bundle.write_text(_BUNDLE)
    bundle.chmod(0o755)


def make_mastodon(root: Path, plan: HostPlan, env_text: str | None) -> None:
    """Mastodon's code directory (`live`) without media, and without `.env.production` when its text is None."""
    for name in ("bin", "config", "db/migrate", "db/post_migrate", "lib/mastodon", "log", "public/system", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "lib/mastodon/version.rb").write_text(_VERSION.format(*plan.version.split(".")))
    (root / "Gemfile").write_text("source 'https://rubygems.org'\nruby '>= 3.3.0', '< 3.6.0'\n")
    (root / "config/settings.yml").write_text("defaults: &defaults\n  site_title: Mastodon\n")
    _python(root / "bin/tootctl", "tootctl", str(root), plan.version)
    _python(root / "bin/rails", "rails", str(root))
    for name in migrations(plan.version).values():
        late = any(word in name for word in ("backfill", "remove"))
        (root / ("db/post_migrate" if late else "db/migrate") / name).touch()
    if env_text is None:
        return
    env = root / ".env.production"
    env.touch(mode=0o600)
    env.write_text(env_text)
    env.chmod(plan.env_mode)


def make_media(system: Path, plan: HostPlan, population: Population) -> None:
    """Uploads under `public/system` (or in a bucket) by Paperclip's path scheme, with the modes Mastodon gives them."""
    dice = random.Random(plan.seed)  # noqa: S311
    for medium in population.media:
        base = system / "cache" if medium.remote_domain else system
        place = base / "media_attachments/files" / partition(medium.id)
        mode = 0o600 if medium.hidden else 0o644
        _file(place / "original" / medium.file_name, medium.bytes, dice, mode)
        small = Path(medium.file_name).with_suffix(".png" if medium.content_type.startswith("video") else "")
        name = small.name if small.suffix else medium.file_name
        _file(place / "small" / name, max(1000, medium.bytes // 8), dice, mode)
    for person in population.people:
        if person.avatar:
            base = system / "cache" if person.domain else system
            _file(base / "accounts/avatars" / partition(person.id) / "original" / person.avatar, 12_000, dice)
    for number, name in enumerate(("blobcat.png", "mastodon.png", "verified.png"), start=1):
        _file(system / "custom_emojis/images" / partition(number) / "original" / name, 4_000, dice)
    _file(
        system / "site_uploads/files" / partition(1) / "original" / "hero.png", 2_000 if plan.cheap else 150_000, dice
    )
    _file(system / "cache/preview_cards/images" / partition(17) / "original" / "0f3c9a4f2b1e8d77.jpg", 20_000, dice)


def environment(*, home: Path, programs: Path, tools: Path, user: str, extra: Mapping[str, str]) -> dict[str, str]:
    """The variables of a command on the host: home and PATH are the host's own."""
    return {
        "HOME": str(home),
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108
        "PATH": f"{programs}:{tools}",
        **extra,
    }


def _file(path: Path, size: int, dice: random.Random, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    magic = _IMAGE.get(path.suffix[1:], b"\xff\xd8\xff\xe0\x00\x10JFIF\x00")
    path.write_bytes(magic + dice.randbytes(max(0, size - len(magic))))
    path.chmod(mode)


def _python(path: Path, program: str, *arguments: str) -> None:
    """A command that runs one of the lab's own programs with a bare interpreter."""
    words = (*program_argv(program), *arguments)
    path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    path.chmod(0o755)


def program_argv(name: str) -> tuple[str, ...]:
    """The command that runs `backends.lab.programs.<name>.main` on the arguments that follow, without site-packages."""
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); "
        f"from backends.lab.programs.{name} import main; sys.exit(main(*sys.argv[1:]))"
    )
    return (sys.executable, "-I", "-S", "-c", script, str(Path(backends.__file__).parent.parent))
