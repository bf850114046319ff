"""What a command line names: hosts and assets."""

from __future__ import annotations

from collections.abc import Sequence

from backends.config.schema import Config
from backends.errors import ConfigurationError
from backends.model import Asset


def parse_target(text: str) -> tuple[str, Asset | None]:
    """Split `HOST[/ASSET]`. Raises `ConfigurationError` for an unknown asset."""
    host, _, name = text.partition("/")
    if not name:
        return host, None
    try:
        return host, Asset(name)
    except ValueError:
        known = ", ".join(Asset)
        raise ConfigurationError(f"{name} is no asset", f"The assets are {known}.") from None


def chosen(config: Config, texts: Sequence[str], *, everything: bool) -> dict[str, tuple[Asset, ...]]:
    """The assets to work on by host, in order of importance.

    Raises:
        ConfigurationError: a host is not configured, an asset is unknown or not among the host's, nothing is named.
    """
    wanted: dict[str, set[Asset]] = {}
    for text in [*config.hosts] if everything else texts:
        host, asset = parse_target(text)
        if host not in config.hosts:
            raise ConfigurationError(f"no host named {host} is configured", "`mastovault host list` shows them.")
        kept = config.hosts[host].assets
        if asset is not None and asset not in kept:
            raise ConfigurationError(
                f"{asset} is not among the assets of {host}", f"Its `assets` are {', '.join(kept)}."
            )
        wanted.setdefault(host, set()).update([asset] if asset else kept)
    if not wanted:
        raise ConfigurationError("nothing is named to back up", "Name HOST or HOST/ASSET, or use --all or --due.")
    return {host: tuple(asset for asset in Asset if asset in assets) for host, assets in wanted.items()}
