"""What a vault's place means: a directory, `s3://bucket/prefix` or `sftp://user@host:port/path`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from backends.config.schema import VaultConfig
from backends.errors import ConfigurationError
from backends.untrusted import clean

_CONFIG: TypeAdapter[VaultConfig] = TypeAdapter(VaultConfig)


def vault_values(place: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a `[vaults.NAME]` table for a place and what else was said of it; None counts as not said.

    Raises:
        ConfigurationError: the place is none, or a setting does not go with its kind.
    """
    values = {**_place(place), **{name: value for name, value in settings.items() if value is not None}}
    vault_config(values)
    return values


def vault_config(values: Mapping[str, Any]) -> VaultConfig:
    """A `[vaults.NAME]` table, checked. Raises `ConfigurationError`."""
    try:
        return _CONFIG.validate_python(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = clean(str(first["loc"][-1] if first["loc"] else ""), 60)
        if first["type"] == "extra_forbidden":
            raise ConfigurationError(
                f"{name} does not go with a vault of the type {values.get('type')}",
                "docs/configuration.md lists what each type takes.",
            ) from None
        raise ConfigurationError(f"{name}: {clean(first['msg'], 200)}", "Correct that value.") from None


def _place(place: str) -> dict[str, Any]:
    scheme, mark, rest = place.partition("://")
    if not mark:
        if not place.strip():
            raise ConfigurationError("a vault needs a place", "Name a directory, s3://BUCKET or sftp://HOST/PATH.")
        return {"type": "directory", "path": _directory(place)}
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        if not bucket:
            raise ConfigurationError("the place names no bucket", "It looks like s3://BUCKET/PREFIX.")
        return {"type": "s3", "bucket": bucket, **({"prefix": prefix.strip("/")} if prefix.strip("/") else {})}
    if scheme == "sftp":
        address, slash, path = rest.partition("/")
        if ":" in address.partition("@")[0] and "@" in address:
            raise ConfigurationError(
                "a password does not belong into an address", "Use an SSH key, or --password-command."
            )
        if not address or not path.strip("/"):
            raise ConfigurationError("the place names no directory", "It looks like sftp://USER@HOST:PORT/PATH.")
        # As in URLs of other tools: one slash is the root, `/./` or `/~/` the login directory.
        relative = path.removeprefix("./") if path.startswith("./") else path.removeprefix("~/")
        return {"type": "sftp", "address": address, "path": relative if relative != path else slash + path}
    if scheme == "file":
        return {"type": "directory", "path": _directory("/" + rest.lstrip("/"))}
    raise ConfigurationError(
        f"{clean(scheme, 30)}:// is no kind of vault", "Name a directory, s3://BUCKET/PREFIX or sftp://USER@HOST/PATH."
    )


def _directory(text: str) -> str:
    if "\0" in text:
        raise ConfigurationError("a directory's name holds no NUL", "Name a directory.")
    try:
        return str(Path(text).expanduser().absolute())
    except RuntimeError:
        raise ConfigurationError(f"{clean(text, 100)} names no user's home", "Name a directory.") from None
