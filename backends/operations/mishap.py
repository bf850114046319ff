"""What becomes of an error: the result of a job that it ended, and a sentence for one that nobody foresaw."""

from __future__ import annotations

import sys
import time
import traceback

from backends.errors import Cancelled, MastovaultError
from backends.model import Asset, JobResult, JobState


def failure(host: str, asset: Asset, error: MastovaultError, began: float) -> JobResult:
    """The result of a job that an error ended; `began` is of the monotonic clock."""
    cancelled = isinstance(error, Cancelled)
    return JobResult(
        host=host,
        asset=asset,
        state=JobState.CANCELLED if cancelled else JobState.FAILED,
        seconds=time.monotonic() - began,
        error=error.sentence,
        next_step=error.next_step or None,
        exit_code=error.exit_code,
    )


def internal(error: BaseException, what: str = "this job") -> MastovaultError:
    """Write to standard error where a bug showed (a run's `output.log`), and return the sentence for the user.

    Neither holds the exception's own text: that could be what a host said, or a secret.
    """
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        print(f"internal error: {type(each).__name__}", file=sys.stderr)  # noqa: T201 - the run's own output.log
        traceback.print_tb(each.__traceback__, file=sys.stderr)
        each = each.__cause__ or each.__context__
    return MastovaultError(
        f"an internal error stopped {what} ({type(error).__name__})",
        "Please report it with the output.log in the folder of this run.",
    )
