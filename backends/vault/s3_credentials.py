"""Who we are at an S3 provider: keys from variables or commands, else the usual AWS chain."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import Any

import botocore.loaders
import botocore.session

from backends.config.schema import S3Vault as S3Config
from backends.connection.secret_commands import secret_from
from backends.errors import ConfigurationError
from backends.model import Secret
from backends.vault.s3_listing import read_page, read_time


def session_of(name: str, config: S3Config) -> Any:
    """A boto3 session that signs as the vault's settings say; variables are read and commands run here.

    Raises:
        ConfigurationError: a variable is not set, a command failed, or only one of the two keys is configured.
        botocore.exceptions.BotoCoreError: the profile is not there.
    """
    boto3: Any = import_module("boto3")  # untyped
    core = botocore.session.Session()
    core.register_component("data_loader", _loader())
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=read_time)
    core.get_component("event_emitter").register("before-parse.s3.ListObjectsV2", read_page)
    access = _key(name, "access_key", config.access_key_env, config.access_key_command)
    secret = _key(name, "secret_key", config.secret_key_env, config.secret_key_command)
    if (access is None) is not (secret is None):
        lacking = "secret_key" if secret is None else "access_key"
        raise ConfigurationError(
            f"the vault {name} has only one of its two keys", f"Set {lacking}_env or {lacking}_command as well."
        )
    if access is None or secret is None:
        return boto3.session.Session(botocore_session=core, profile_name=config.profile, region_name=config.region)
    return boto3.session.Session(
        botocore_session=core,
        aws_access_key_id=access.reveal(),
        aws_secret_access_key=secret.reveal(),
        region_name=config.region,
    )


@cache
def _loader() -> Any:
    """The description of S3's interface, read once for all vaults: it takes 0.1 s and 10 MB."""
    return botocore.loaders.create_loader()


def _key(name: str, what: str, variable: str | None, command: str | None) -> Secret | None:
    if variable:
        value = os.environ.get(variable, "").strip()
        if not value:
            raise ConfigurationError(
                f"the variable {variable}, which the vault {name} takes its {what} from, is not set", "Set it."
            )
        return Secret(value)
    return secret_from(command, f"{what}_command of the vault {name}") if command else None
