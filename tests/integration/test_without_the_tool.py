"""A vault restored with age, zstd, tar, openssl, psql, pg_restore and sh: the very commands of its README.txt."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.archive.signing import new_signing_key
from backends.lab.lab import Lab
from backends.model import Asset
from backends.vault.format import README
from tests.restore_world import Restores
from tests.runs_world import World
from tests.servers.need import need

DATABASE = "without_the_tool"


class Readme:
    """The commands of a vault's README.txt, by section, and where they are run."""

    def __init__(self, social: Restores, vault: Path, out: Path) -> None:
        self.social, self.vault, self.out = social, vault, out
        # every section is headed by words in capitals; what can be typed is indented by four
        parts = re.split(r"^([A-Z][A-Z ]+)\b.*\n\n", (vault / README).read_text(), flags=re.MULTILINE)
        self.begin, self.sections = self._commands(parts[0]), {}
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            self.sections[name.strip()] = self._commands(text)
        server = social.host.postgres
        self.environment = {
            "PATH": f"{server.bin}:{os.environ['PATH']}",
            "HOME": str(out.parent),
            "PGHOST": "127.0.0.1",
            "PGPORT": str(server.port),
            "PGUSER": "postgres",
            "PGPASSWORD": server.password,
        }

    def _commands(self, text: str) -> str:
        return "".join(f"{line[4:]}\n" for line in text.splitlines() if line.startswith("    "))

    def newest(self, asset: Asset) -> str:
        """The last backup by name, as the text says."""
        return max(str(path.parent.name) for path in self.vault.glob(f"hosts/social/{asset}/2*/manifest.json"))

    def manifest(self, asset: Asset) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.vault / "hosts/social" / asset / self.newest(asset) / "manifest.json").read_text()
        )
        return found

    def run(self, section: str, asset: Asset, **values: str) -> subprocess.CompletedProcess[str]:
        """Type the commands of a section, with the reader's own paths and names in place of the examples."""
        login = self.social.host.database
        values = {
            "/path/to/identity.age": str(self.social.world.config.encryption.identity),
            "/path/to/a/directory": str(self.out),
            "hosts/HOST/ASSET/TIME-ID": f"hosts/social/{asset}/{self.newest(asset)}",
            f"hosts/HOST/{asset}/TIME-ID": f"hosts/social/{asset}/{self.newest(asset)}",
            "-O mastodon ": f"-O {login.user} ",
            "--role=mastodon ": f"--role={login.user} ",
            "mastodon_production": DATABASE,
            **values,
        }
        script = self.begin + self.sections[section]
        for example, real in values.items():
            script = script.replace(example, real)
        return subprocess.run(
            ["sh", "-ec", script], cwd=self.vault, env=self.environment, capture_output=True, text=True, timeout=60
        )


@pytest.fixture(scope="module")
def readme(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Readme]:
    need("age", "zstd", "tar", "openssl", "awk", "sed", "sha256sum")
    made = Restores(World(lab, tmp_path_factory.mktemp("without")))
    made.back_up()
    yield Readme(made, made.world.vaults["local"], tmp_path_factory.mktemp("files") / "out")
    made.sql(f"DROP DATABASE IF EXISTS {DATABASE}", "postgres")


def test_the_database(readme: Readme) -> None:
    ran = readme.run("DATABASE", Asset.DATABASE)
    assert ran.returncode == 0, ran.stderr
    rows = {name: table["rows"] for name, table in readme.manifest(Asset.DATABASE)["facts"]["tables"].items()}
    assert rows["public.statuses"] == 300
    for name, count in rows.items():
        assert readme.social.sql(f"SELECT count(*) FROM {name}", DATABASE) == str(count), name
    kind = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'"
    assert readme.social.sql(kind, DATABASE) == readme.social.sql(kind)


def test_the_secrets(readme: Readme) -> None:
    ran = readme.run("SECRETS", Asset.SECRETS)
    assert ran.returncode == 0, ran.stderr
    live = readme.social.host.root / ".env.production"
    got = readme.out / "secrets" / str(live).lstrip("/")
    assert got.read_bytes() == live.read_bytes()
    assert got.stat().st_mode == live.stat().st_mode


def test_redis(readme: Readme) -> None:
    ran = readme.run("REDIS", Asset.REDIS)
    assert ran.returncode == 0, ran.stderr
    [entry] = readme.manifest(Asset.REDIS)["objects"]
    assert hashlib.sha256((readme.out / "dump.rdb").read_bytes()).hexdigest() == entry["plain_sha256"]


def test_the_media(readme: Readme) -> None:
    """With a file that changed between two backups: of its two packs only one has the right content."""
    system = readme.social.host.root / "public/system"
    changed = next(path for path in sorted(system.glob("accounts/**/*.png")) if path.is_file())
    before = changed.read_bytes()
    odd = os.fsencode(system) + b"/accounts/caf\xe9.png"
    changed.write_bytes(b"another picture")
    with open(odd, "wb") as file:  # noqa: PTH123 - a name that is no text
        file.write(b"odd")
    try:
        readme.social.back_up(Asset.MEDIA)
        ran = readme.run("MEDIA", Asset.MEDIA)
        assert ran.returncode == 0, ran.stderr
        assert "the media are whole" in ran.stdout
        got = tree(readme.out / "media")
        assert got == {path: each for path, each in tree(system).items() if not path.startswith(b"cache/")}
        assert got[os.fsencode(changed.relative_to(system))][1] == b"another picture"
        assert got[b"accounts/caf\xe9.png"][1] == b"odd"
    finally:
        changed.write_bytes(before)
        os.unlink(odd)  # noqa: PTH108


def tree(root: Path) -> dict[bytes, tuple[int, bytes]]:
    """Every file by its path, with its mode and content; of a link where it leads."""
    found = {}
    for place, _, names in os.walk(os.fsencode(root)):
        for name in names:
            path = os.path.join(place, name)  # noqa: PTH118
            link = os.path.islink(path)  # noqa: PTH114
            with open(path, "rb") if not link else open(os.devnull, "rb") as file:  # noqa: PTH123
                content = os.readlink(path) if link else file.read()  # noqa: PTH115
            mode = 0 if link else os.stat(path).st_mode & 0o777  # noqa: PTH116
            found[os.path.relpath(path, os.fsencode(root))] = (mode, content)
    return found


@pytest.mark.parametrize("asset", Asset)
def test_whether_it_is_intact(readme: Readme, asset: Asset) -> None:
    ran = readme.run("IS IT INTACT", asset)
    assert ran.returncode == 0, ran.stderr
    objects = readme.manifest(asset)["objects"]
    assert ran.stdout.count("intact: ") == len(objects)
    assert "DAMAGED" not in ran.stdout
    entry = objects[-1]
    path = readme.vault / (entry["key"] or f"hosts/social/{asset}/{readme.newest(asset)}/{entry['name']}")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        said = readme.run("IS IT INTACT", asset).stdout
        assert said.count("DAMAGED: ") == 1
        assert str(path.relative_to(readme.vault)) in said
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("asset", Asset)
def test_who_wrote_it(readme: Readme, asset: Asset, tmp_path: Path) -> None:
    [public] = readme.social.world.config.signers.values()
    ran = readme.run("WHO WROTE IT", asset, **{"public-key-in-base64": public})
    assert (ran.returncode, ran.stdout.strip()) == (0, "Signature Verified Successfully"), ran.stderr
    other = new_signing_key(tmp_path / "other.pem")
    ran = readme.run("WHO WROTE IT", asset, **{"public-key-in-base64": other})
    assert ran.returncode != 0
    path = readme.vault / "hosts/social" / asset / readme.newest(asset) / "manifest.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"in_part": false', b'"in_part": true '))
    try:
        assert readme.run("WHO WROTE IT", asset, **{"public-key-in-base64": public}).returncode != 0
    finally:
        path.write_bytes(whole)
