"""What is kept, for how long, in words."""

from __future__ import annotations

from backends.config.schema import Config, HostRetention, Policy, Retention
from backends.model import Asset
from tui.widgets import say


def policy_words(policy: Policy, between: str = ", ") -> str:
    """`7 daily, 4 weekly, 6 monthly, all of 14d`."""
    numbers = [
        (policy.last, "last"),
        (policy.daily, "daily"),
        (policy.weekly, "weekly"),
        (policy.monthly, "monthly"),
        (policy.yearly, "yearly"),
    ]
    parts = [f"{number} {word}" for number, word in numbers if number]
    if policy.within:
        parts.append(f"all of {say.goal(policy.within.total_seconds())}")
    return between.join(parts) or "everything"


def retention_lines(config: Config) -> list[tuple[str, str]]:
    """Who keeps what: all, single assets, hosts of their own; and when it is pruned."""
    lines = [("all", policy_words(config.retention)), *_assets(config.retention)]
    for name, host in config.hosts.items():
        own = host.retention
        if not own.empty:
            lines.append((name, policy_words(own)))
        lines += [(f"{name}/{asset}", words) for asset, words in _assets(own)]
    when = "after every backup that succeeded" if config.retention.after_backup else "only by P or `mastovault prune`"
    return [*lines, ("pruned", when)]


def _assets(level: Retention | HostRetention) -> list[tuple[str, str]]:
    found = ((asset.value, getattr(level, asset.value)) for asset in Asset)
    return [(name, policy_words(policy)) for name, policy in found if isinstance(policy, Policy)]
