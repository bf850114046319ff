"""Which module handles which asset; a new asset is one module and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from backends.assets.base import AssetHandler
from backends.model import Asset

_MODULES = {
    Asset.DATABASE: "backends.assets.database",
    Asset.SECRETS: "backends.assets.secrets",
    Asset.MEDIA: "backends.assets.media",
    Asset.REDIS: "backends.assets.redis",
}


def handler(asset: Asset) -> AssetHandler:
    """The handler of an asset: its module's `HANDLER`. Loaded when first asked for, so that a listing stays fast."""
    return cast(AssetHandler, import_module(_MODULES[asset]).HANDLER)
