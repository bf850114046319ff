"""A restore onto a real host of what its writer did not sign: refused until its word is typed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from backends.archive.layout import manifest_key, snapshot_prefix
from backends.catalog import Catalog
from backends.errors import AssetFailed
from backends.lab.lab import Lab
from backends.model import Asset, JobState
from backends.operations.reading import Reading
from backends.operations.restore import plan_restore
from backends.operations.undo import _walk
from backends.restore.journal import new_journal, opened
from backends.vault.open import open_vault
from tests.restore_world import Restores, as_it_was
from tests.runs_world import World
from tests.servers.backup import WatchedJob
from tests.trust_world import with_digest


@pytest.fixture(scope="module")
def social(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Restores:
    made = Restores(World(lab, tmp_path_factory.mktemp("trust")))
    made.back_up(Asset.SECRETS)
    return made


def test_what_is_known_to_be_torn_is_blocked_before_anything_is_done(social: Restores) -> None:
    world = social.world
    request = social.request(Asset.SECRETS)
    snapshot = request.snapshots[Asset.SECRETS]
    catalog = Catalog(world.paths.cache_dir)
    kept = {}
    for vault in world.vaults.values():
        for path in (vault / snapshot_prefix(snapshot)).glob("*.age"):
            kept[path] = path.read_bytes()
            path.write_bytes(kept[path][:-1])
    for name, its in world.config.vaults.items():
        catalog.refresh_vault(open_vault(name, its))
    try:
        texts = [each.text for each in plan_restore(world.config, world.paths, request).blocked if not each.accept]
    finally:
        for path, data in kept.items():
            path.write_bytes(data)
    assert any(re.search("is damaged in every vault: .* bytes instead of", text) for text in texts), texts
    for name, its in world.config.vaults.items():
        catalog.refresh_vault(open_vault(name, its))
    assert not plan_restore(world.config, world.paths, request).blocked


def test_what_is_not_signed_needs_its_word(social: Restores) -> None:
    world = social.world
    request = social.request(Asset.SECRETS)
    assert not plan_restore(world.config, world.paths, request).blocked, "as it was written it is trusted"
    for vault in world.vaults.values():
        path = vault / manifest_key(request.snapshots[Asset.SECRETS])
        path.write_bytes(with_digest(path.read_bytes()[:-253]))
    plan = plan_restore(world.config, world.paths, request)
    [blocked] = plan.blocked
    assert (blocked.accept, blocked.asset) == ("unsigned", Asset.SECRETS)
    assert "is not signed" in blocked.text
    with as_it_was(social):
        [refused] = social.restore(request)
        assert refused.state is JobState.FAILED
        assert "nothing was changed" in (refused.error or "")
        assert "Or type social/unsigned to do it all the same." in (refused.next_step or "")
        assert social.restore(replace(request, accept=("foreign", "changed")))[0].state is JobState.FAILED
    accepted = replace(request, accept=("unsigned",))
    assert not plan_restore(world.config, world.paths, accepted).blocked


def test_a_restore_is_not_continued_with_what_was_exchanged_meanwhile(social: Restores, tmp_path: Path) -> None:
    world, job = social.world, WatchedJob()
    request = social.request(Asset.SECRETS)
    leases = Reading("r", "restored", job.log)
    with opened(new_journal(tmp_path, request)) as journal, pytest.raises(AssetFailed, match="is not signed"):
        _walk(world.config, world.paths, journal, None, {}, job, "resume", leases)  # type: ignore[arg-type]
    leases.release()
