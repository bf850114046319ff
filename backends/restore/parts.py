"""Which parts a restore has, and the order of their steps."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from backends.errors import MastovaultError
from backends.restore.base import Action, Part
from backends.restore.plan import ORDER, RestoreRequest

SERVICES = "services"


def parts_of(request: RestoreRequest) -> dict[str, Part]:
    """The parts of a restore by name: its assets', in the order of a phase, and that of Mastodon's services."""
    names = [*(asset.value for asset in ORDER if asset in request.assets), SERVICES]
    return {name: part(name) for name in names}


def part(name: str) -> Part:
    """One part by its name; loaded when it is asked for."""
    return cast(Part, import_module(f"backends.restore.{name}").PART)


def actions_of(request: RestoreRequest, facts: Mapping[str, Mapping[str, Any]]) -> list[Action]:
    """All steps in the order they are carried out: by phase, then by asset, then as the part gives them.

    Args:
        request: what was asked for.
        facts: what each part's look gave; a part without facts has no steps.

    Raises:
        MastovaultError: the facts are those of another version of this program, whose journal is being gone on with.
    """
    found: list[tuple[int, int, Action]] = []
    for place, (name, each) in enumerate(parts_of(request).items()):
        if facts.get(name):
            try:
                made = each.actions(request, facts[name])
            except (KeyError, TypeError, ValueError, AttributeError, IndexError):
                raise MastovaultError(
                    f"the steps of {name} cannot be made from what the restore {request.id} wrote down",
                    "Go on with it with the version of Mastovault that began it.",
                ) from None
            found += [(action.info.phase, place, action) for action in made]
    # Stable: steps of one part and phase stay as they were given.
    return [action for *_, action in sorted(found, key=lambda entry: entry[:2])]
