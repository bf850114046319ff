"""Redis comes back: staged beside its data, put in place while Mastodon is stopped, taken back the same way."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from backends.model import Asset
from backends.restore.base import Action, Target, Work
from backends.restore.plan import Look, Phase, RestoreRequest, StepInfo
from backends.restore.redis_look import look
from backends.restore.redis_place import Facts, Server
from backends.restore.redis_stage import stage, unstage
from backends.restore.redis_swap import forget_swap, swap, undo_swap
from backends.restore.source import Source

_SEND = 20 * 1024 * 1024
_SAVE = 80 * 1024 * 1024
_LOAD = 80 * 1024 * 1024
"""Bytes a second, about, until history knows better."""
_RESTART_SECONDS = 1.0


class RedisPart:
    """`dump.rdb` of each server that holds more than a cache, or an empty one."""

    asset: ClassVar[Asset | None] = Asset.REDIS

    def look(self, request: RestoreRequest, target: Target, sources: Mapping[Asset, Source]) -> Look:
        """See the contract."""
        return look(request, target, sources)

    def actions(self, request: RestoreRequest, facts: Mapping[str, Any]) -> Sequence[Action]:
        """Stage every server's snapshot, then swap each."""
        servers = Facts.read(facts)
        stages = [
            Action(
                info=_stage_info(server, request.id), do=_on(stage, server), undo=_on(unstage, server),
                forget=_on(unstage, server),
            )
            for server in servers
        ]  # fmt: skip
        swaps = [
            Action(
                info=_swap_info(server, request.id), do=_on(swap, server), undo=_on(undo_swap, server),
                forget=_on(forget_swap, server),
            )
            for server in servers
        ]  # fmt: skip
        return [*stages, *swaps]


def _on(act: Callable[[Work, Server], None], server: Server) -> Callable[[Work], None]:
    return lambda work: act(work, server)


def _stage_info(server: Server, mark: str) -> StepInfo:
    path = shlex.quote(server.path(server.staged(mark)))
    return StepInfo(
        id=f"redis.stage{server.suffix}",
        asset=Asset.REDIS,
        phase=Phase.STAGE,
        name="stage Redis",
        what=f"{server.object or 'an empty snapshot'} into {server.directory}, and check it; nothing live changes",
        commands=(
            f"cat >{path}",
            f"chown {shlex.quote(f'{server.owner}:{server.group}')} {path} && chmod {server.mode:o} {path}",
            f"redis-check-rdb {path}",
        ),
        seconds=round(1 + server.bytes / _SEND, 1),
    )


def _swap_info(server: Server, mark: str) -> StepInfo:
    unit, directory = shlex.quote(server.unit), shlex.quote(server.directory)
    file, before = shlex.quote(server.file), shlex.quote(f"{server.file}.before-{mark}")
    names = [(shlex.quote(name), shlex.quote(f"{name}.before-{mark}")) for name in server.aof_names]
    commands = [f"systemctl stop {unit}", f"cd {directory}", f"ln {file} {before}"]
    commands += [f"mv {name} {aside}  # if it is there" for name, aside in names]
    commands += [f"mv {shlex.quote(server.staged(mark))} {file}"]
    start = [f"systemctl start {unit}", "redis-cli INFO keyspace"]
    if server.aof:
        config = shlex.quote(server.config)
        kept = shlex.quote(f"{server.config}.before-{mark}")
        commands[1:1] = [f"ln {config} {kept}", f"echo 'appendonly no' >>{config}  # a copy of it, then renamed"]
        start += ["redis-cli CONFIG SET appendonly yes", "redis-cli INFO persistence  # until it is written"]
        start += [f"mv {kept} {config}", f"systemctl restart {unit}", "redis-cli INFO keyspace"]
    loads = 3 if server.aof else 1
    starts = 2 if server.aof else 1
    seconds = starts * _RESTART_SECONDS + server.old_bytes / _SAVE + loads * server.bytes / _LOAD
    what = f"{server.unit} stops, its data is set aside, {server.object or 'an empty snapshot'} takes its place"
    return StepInfo(
        id=f"redis.swap{server.suffix}",
        asset=Asset.REDIS,
        phase=Phase.SWAP,
        name="swap Redis",
        what=f"{what}, it starts and is counted",
        commands=(*commands, *start),
        seconds=round(seconds, 1),
    )


PART = RedisPart()
