"""How every operation on the assets of one host begins and goes on: prepare once, then one job for each asset."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

from backends.errors import MastovaultError
from backends.model import Asset, JobResult
from backends.operations.mishap import failure

_W = TypeVar("_W")


def each_asset(
    host: str,
    assets: Collection[Asset],
    prepare: Callable[[], AbstractContextManager[_W]],
    one: Callable[[_W, Asset], JobResult],
    on_result: Callable[[JobResult], None],
    *,
    at_once: int = 1,
) -> list[JobResult]:
    """Do a job for each asset; when it cannot even begin, that is every asset's result.

    Args:
        host: the host's name.
        assets: which; done in order of importance.
        prepare: makes what the jobs share, which is closed after the last.
        one: does one job; its faults are results, never raised.
        on_result: told of each result as soon as it is known.
        at_once: how many jobs run at the same time.

    Returns:
        One result for each asset, in order of importance.
    """
    began = time.monotonic()
    ordered = [asset for asset in Asset if asset in assets]
    with ExitStack() as stack:
        try:
            work = stack.enter_context(prepare())
        except MastovaultError as error:
            results = [failure(host, asset, error, began) for asset in ordered]
            for result in results:
                on_result(result)
            return results

        def told(asset: Asset) -> JobResult:
            result = one(work, asset)
            on_result(result)
            return result

        if at_once == 1:
            return [told(asset) for asset in ordered]
        with ThreadPoolExecutor(at_once, thread_name_prefix="job") as pool:
            return list(pool.map(told, ordered))
