"""Snapshots of the lab's hosts written as files here, and opened with the tools that they are meant for."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.catalog import Catalog
from backends.lab.lab import Lab
from backends.model import Asset, JobResult, JobState
from backends.operations.choose import points
from backends.operations.extract import extract, plan_extract
from tests.media_world import seen
from tests.restore_world import Restores
from tests.runs_world import World
from tests.servers.backup import WatchedJob
from tests.servers.need import need_root


@pytest.fixture(scope="module")
def social(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Restores:
    made = Restores(World(lab, tmp_path_factory.mktemp("world")))
    made.back_up()
    return made


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "files"


def snapshots(social: Restores, *assets: Asset) -> dict[Asset, str]:
    point = points(Catalog(social.world.paths.cache_dir), social.name)[0]
    return {asset: info.id for asset, info in point.snapshots.items() if not assets or asset in assets}


def run(
    social: Restores, here: Path, *assets: Asset, job: WatchedJob | None = None, subtree: str = ""
) -> list[JobResult]:
    chosen = snapshots(social, *assets)
    jobs = dict.fromkeys(chosen, job or WatchedJob())
    return extract(social.world.config, social.world.paths, chosen, here, jobs, "run1", subtree=subtree)


def uploads(social: Restores, root: Path | None = None) -> dict[bytes, object]:
    """Files of the host's tree without cache/: content, mode, time."""
    found = seen(root or social.host.root / "public" / "system")
    return {
        name: state[:3] for name, state in found.items() if state[0] != "directory" and not name.startswith(b"cache/")
    }


def test_everything_is_written_as_standard_tools_take_it(social: Restores, here: Path) -> None:
    results = run(social, here)
    assert {result.state for result in results} == {JobState.DONE}, results
    assert here.stat().st_mode & 0o777 == 0o700
    names = {path.name for path in here.iterdir()}
    assert names == {"database.pgdump", "globals.sql", "environment", "media", "dump.rdb", "README.txt"}
    assert uploads(social, here / "media") == uploads(social)
    environment = here / "environment" / str(social.host.root / ".env.production").lstrip("/")
    assert environment.read_bytes() == (social.host.root / ".env.production").read_bytes()
    assert environment.stat().st_mode & 0o777 == 0o600
    assert (here / "dump.rdb").read_bytes()[:5] == b"REDIS"
    assert "createdb -T template0" in (here / "README.txt").read_text()
    assert all("written to" in result.detail for result in results)
    restore = social.world.lab.postgres.bin / "pg_restore"
    subprocess.run([restore, "-f", os.devnull, here / "database.pgdump"], check=True)


def test_the_plan_writes_nothing_and_says_what_is_in_the_way(social: Restores, here: Path) -> None:
    world = social.world
    plan = plan_extract(world.config, world.paths, snapshots(social), here)
    assert plan.blocked == ()
    assert [step.asset for step in plan.steps] == list(Asset)
    assert plan.spaces[0].free is not None
    assert plan.spaces[0].need > 0
    assert not here.exists()
    here.mkdir()
    (here / "mine.txt").write_text("keep")
    plan = plan_extract(world.config, world.paths, snapshots(social), here)
    assert [found.text for found in plan.blocked] == [f"{here} is not empty."]


def test_a_directory_with_something_in_it_is_left_alone(social: Restores, here: Path) -> None:
    here.mkdir()
    (here / "mine.txt").write_text("keep")
    [result] = run(social, here, Asset.REDIS)
    assert (result.state, result.exit_code) == (JobState.FAILED, 2)
    assert result.error == f"{here} is not empty"
    assert [path.name for path in here.iterdir()] == ["mine.txt"]


def test_what_a_killed_run_left_is_no_obstacle(social: Restores, here: Path) -> None:
    (here / ".mastovault-extract.part" / "media").mkdir(parents=True)
    [result] = run(social, here, Asset.REDIS)
    assert result.state is JobState.DONE
    assert {path.name for path in here.iterdir()} == {"dump.rdb", "README.txt"}


def test_two_at_once_do_not_mix(social: Restores, here: Path) -> None:
    here.mkdir()
    handle = os.open(here, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        [result] = run(social, here, Asset.REDIS)
    finally:
        os.close(handle)
    assert result.exit_code == 11
    assert list(here.iterdir()) == []


def test_only_a_subtree_of_the_media(social: Restores, here: Path) -> None:
    [result] = run(social, here, Asset.MEDIA, subtree="accounts")
    assert result.state is JobState.DONE, result
    wanted = {name: state for name, state in uploads(social).items() if name.startswith(b"accounts/")}
    assert wanted
    assert uploads(social, here / "media") == wanted
    shutil.rmtree(here)
    [result] = run(social, here, Asset.MEDIA, subtree="nothing/there")
    assert result.error == "the snapshot holds nothing below nothing/there"
    assert not here.exists()
    [result] = run(social, here, Asset.MEDIA, subtree="../etc")
    assert "is no path below the media directory" in (result.error or "")
    assert not here.exists()


@pytest.mark.parametrize("asset", list(Asset))
def test_cancel_leaves_nothing(social: Restores, here: Path, asset: Asset) -> None:
    job = WatchedJob()
    job._at = lambda step, done: job.cancel() if step.startswith("writing") else None
    [result] = run(social, here, asset, job=job)
    assert result.state is JobState.CANCELLED
    assert not here.exists()


@pytest.fixture
def damage(social: Restores) -> Iterator[Path]:
    """The first vault of the world, put back as it was afterwards."""
    vault = social.world.vaults["local"]
    kept = vault.with_name("kept")
    shutil.copytree(vault, kept)
    yield vault
    shutil.rmtree(vault)
    kept.rename(vault)


def spoil(path: Path, how: str) -> None:
    """Flip a bit in the middle of a file, or cut it off there."""
    data = bytearray(path.read_bytes())
    path.chmod(0o600)
    if how == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("how", ["flipped", "truncated"])
def test_a_good_copy_in_another_vault_is_found(social: Restores, here: Path, damage: Path, how: str) -> None:
    for path in damage.rglob("*.age"):
        spoil(path, how)
    job = WatchedJob()
    results = run(social, here, job=job)
    assert {result.state for result in results} == {JobState.DONE}, results
    assert uploads(social, here / "media") == uploads(social)
    assert [line for line in job.lines if "Trying the copy in offsite" in line]


def test_damage_everywhere_is_one_sentence_and_leaves_nothing(social: Restores, here: Path, damage: Path) -> None:
    offsite = social.world.vaults["offsite"]
    moved = offsite.with_name("away")
    offsite.rename(moved)
    try:
        for path in damage.rglob("*.age"):
            spoil(path, "flipped")
        results = run(social, here)
    finally:
        if offsite.exists():
            shutil.rmtree(offsite)
        moved.rename(offsite)
    assert {result.state for result in results} == {JobState.FAILED}
    assert all(result.next_step for result in results)
    assert not here.exists()


def test_a_full_disk_is_one_sentence_and_leaves_nothing(social: Restores, here: Path) -> None:
    need_root("it mounts a small file system")
    here.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", here], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        results = run(social, here, Asset.DATABASE, Asset.MEDIA)
        assert {result.state for result in results} == {JobState.FAILED}
        assert all(str(here) in (result.error or "") for result in results), results
        assert all("disk" in (result.next_step or "") for result in results)
        assert list(here.iterdir()) == []
    finally:
        subprocess.run(["umount", here], check=True)


def test_the_command_does_the_same_and_shows_the_plan_first(social: Restores, here: Path) -> None:
    code, out, err = social.world.run("restore", "social", "--to", str(here), "--plan", "--json")
    assert (code, err) == (0, "")
    assert f"files in {here} on this machine" in out
    assert not here.exists()
    code, out, err = social.world.run("restore", "social/media", "--to", str(here), "--path", "accounts")
    assert code == 0, (out, err)
    assert {path.name for path in here.iterdir()} == {"media", "README.txt"}
