"""docs/recovery.md, carried out: what it tells to type is typed, on a real Debian."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.servers.debian import Debian
from tests.servers.debian_mastodon import ROOT, Mastodon, install_code
from tests.servers.debian_world import World

pytestmark = [pytest.mark.apt, pytest.mark.root, pytest.mark.timeout(400)]

_PAGE = (Path(__file__).parents[2] / "docs/recovery.md").read_text()
_BLOCK = re.compile(r"^```sh ?(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks(*kinds: str) -> list[str]:
    """The page's blocks of commands: those by hand, those that need the code (`code`), those of Mastovault (`with`)."""
    return [text for kind, text in _BLOCK.findall(_PAGE) if kind in kinds]


def _carry_vault(world: World, to: Debian) -> None:
    """The vault, the identity and whom to trust, as the page says where they are."""
    home = world.operator.home
    packed = subprocess.run(
        ("tar", "-C", str(home), "-c", "vault", "identity.age", "signers.txt"), capture_output=True, check=True
    )
    to.run("tar -C /root -x --no-same-owner", stdin=packed.stdout)


def _type(host: Debian, blocks: list[str]) -> str:
    """Type the blocks into one shell of root's, which stops at the first command that fails."""
    host.run("cat >/root/typed.sh", stdin="\n".join(["set -e -o pipefail", *blocks]).encode())
    return host.run("cd /root; bash typed.sh; rm typed.sh")


def test_by_hand_onto_a_new_machine(world: World, tmp_path: Path) -> None:
    with Debian(tmp_path / "new", "new") as host:
        _carry_vault(world, host)
        install_code(host)
        said = _type(host, _blocks("", "code"))
        assert "DAMAGED" not in said
        assert "DIFFERS" not in said
        assert said.count("Signature Verified Successfully") == 4
        assert "NOT SIGNED" not in said
        restored = Mastodon(host, world.mastodon.values, world.mastodon.population)
        assert restored.healthy()
        assert restored.counts() == world.good.counts
        wanted = {path: each for path, each in world.good.media.items() if not path.startswith("cache/")}
        assert restored.media() == wanted
        assert host.run(f"stat -c '%a %U:%G' {ROOT}/.env.production").strip() == "600 mastodon:mastodon"
        assert host.redis("LLEN", "queue:push") == world.good.redis[0]
        assert restored.databases() == ["mastodon_production", "postgres"]


def test_by_hand_where_the_damage_is(world: World) -> None:
    host, mastodon = world.host, world.mastodon
    _carry_vault(world, host)
    host.redis("CONFIG", "SET", "appendonly", "yes")
    host.redis("CONFIG", "REWRITE")
    host.sql("SET ROLE mastodon; DROP TABLE statuses CASCADE")
    host.run(f"rm -r {ROOT}/public/system/accounts; echo >{ROOT}/.env.production")
    host.redis("FLUSHALL")
    said = _type(host, _blocks("", "code"))
    assert "DAMAGED" not in said
    assert "DIFFERS" not in said
    assert mastodon.healthy()
    assert mastodon.counts() == world.good.counts
    assert mastodon.media() == world.good.media
    host.run("systemctl restart redis-server")
    assert host.redis("LLEN", "queue:push") == world.good.redis[0]
    assert host.redis("CONFIG", "GET", "appendonly").split()[1] == "yes"
    assert mastodon.databases() == ["mastodon_before", "mastodon_production", "postgres"]


def test_a_damaged_or_forged_copy_is_noticed(world: World, tmp_path: Path) -> None:
    with Debian(tmp_path / "new", "new") as host:
        _carry_vault(world, host)
        host.run("printf x >>$(ls /root/vault/hosts/social/redis/2*/*.age)")
        said = _type(host, _blocks("")[:3])
        assert said.count("DAMAGED") == 1
        assert "NOT SIGNED" not in said, "the manifest is as it was"
        # and changed or signed by somebody who may write to the vault
        host.run('sed -i \'s/"in_part": false/"in_part": true /\' /root/vault/hosts/social/redis/2*/manifest.json')
        said = _type(host, _blocks("")[:3])
        assert said.count("NOT SIGNED BY THEM: /root/vault/hosts/social/redis/") == said.count("NOT SIGNED") == 1
        host.run("echo AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= >/root/signers.txt")
        assert _type(host, _blocks("")[:3]).count("NOT SIGNED") == 4


def test_with_the_tool(world: World) -> None:
    world.host.sql("SET ROLE mastodon; DROP TABLE statuses CASCADE")
    for line in "".join(_blocks("with")).split("\n")[:-1]:
        world.operator.must(*line.split()[1:])
    assert world.mastodon.healthy()
    assert world.mastodon.counts() == world.good.counts
    world.forget_all()
