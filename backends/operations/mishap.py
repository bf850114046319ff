"""What becomes of an error that nobody foresaw: a sentence for the user, and where it happened for whoever mends it."""

from __future__ import annotations

import sys
import traceback

from backends.errors import MastovaultError


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
