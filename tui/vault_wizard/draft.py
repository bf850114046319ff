"""What has been typed into the wizard so far, and the settings made of it. Pure: nothing here looks anywhere.

No field is for a secret: credentials come from where AWS's own tools find them, from variables, or from commands.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backends.config.schema import HOST_NAME, VaultConfig
from backends.config.vault_place import vault_config, vault_values
from backends.errors import ConfigurationError

Kind = Literal["directory", "s3", "sftp"]
KINDS: Mapping[Kind, tuple[str, str]] = {
    "directory": ("directory", "on this machine: a disk or a share that is mounted"),
    "s3": ("S3 bucket", "at AWS, or any provider that speaks the same"),
    "sftp": ("SFTP server", "a directory on another machine: a NAS, a storage box"),
}
CREDENTIALS: Mapping[str, str] = {
    "chain": "as AWS",
    "profile": "profile",
    "env": "variables",
    "command": "commands",
}
"""How the credentials of a bucket come."""
OFFSITE: Mapping[str, str] = {"guess": "guess", "yes": "yes", "no": "no"}
PLACE, MORE = 2, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One line of the form. With `options` it is a choice, else a field to type into."""

    id: str
    label: str
    page: int
    kinds: frozenset[Kind]
    help: str
    hint: str = ""
    options: tuple[tuple[str, str], ...] = ()
    credentials: str = ""
    """Only when the credentials come like this."""
    required: bool = False


_ALL: frozenset[Kind] = frozenset(KINDS)
_HERE: frozenset[Kind] = frozenset({"directory"})
_S3: frozenset[Kind] = frozenset({"s3"})
_SFTP: frozenset[Kind] = frozenset({"sftp"})

SPECS: tuple[Spec, ...] = (
    Spec(id="name", label="name", page=PLACE, kinds=_ALL, required=True, hint="offsite",
         help="What it is called here and in config.toml: letters, digits, dots, dashes, underscores."),
    Spec(id="path", label="directory", page=PLACE, kinds=_HERE, required=True, hint="/srv/mastovault",
         help="Made when it is not there. On the disk that it protects it is no backup against that disk's failure."),
    Spec(id="bucket", label="bucket", page=PLACE, kinds=_S3, required=True, hint="my-backups",
         help="It must be there already; Mastovault makes no buckets."),
    Spec(id="prefix", label="prefix", page=PLACE, kinds=_S3, hint="mastodon",
         help="A folder within the bucket, so that other things can be in it too. Empty: the whole bucket."),
    Spec(id="endpoint_url", label="endpoint", page=PLACE, kinds=_S3, hint="https://s3.example",
         help="The provider's address. Empty: AWS."),
    Spec(id="region", label="region", page=PLACE, kinds=_S3, hint="eu-central-1",
         help="Where the bucket is. Many providers other than AWS need none."),
    Spec(id="credentials", label="credentials", page=PLACE, kinds=_S3, options=tuple(CREDENTIALS.items()),
         help="No secret is kept in config.toml. `as AWS`: its variables, ~/.aws, or the machine's role."),
    Spec(id="profile", label="profile", page=PLACE, kinds=_S3, credentials="profile", required=True, hint="backups",
         help="A profile of ~/.aws/config or ~/.aws/credentials."),
    Spec(id="access_key_env", label="key id in", page=PLACE, kinds=_S3, credentials="env", required=True,
         hint="BACKUP_KEY_ID", help="The NAME of the variable that holds the access key's id, not the id."),
    Spec(id="secret_key_env", label="secret in", page=PLACE, kinds=_S3, credentials="env", required=True,
         hint="BACKUP_SECRET", help="The NAME of the variable that holds the secret key. Never the key itself."),
    Spec(id="access_key_command", label="key id from", page=PLACE, kinds=_S3, credentials="command", required=True,
         hint="pass show s3/id", help="A command that prints the access key's id; run without a shell."),
    Spec(id="secret_key_command", label="secret from", page=PLACE, kinds=_S3, credentials="command", required=True,
         hint="pass show s3/secret", help="A command that prints the secret key; run without a shell."),
    Spec(id="address", label="server", page=PLACE, kinds=_SFTP, required=True, hint="backup@nas.example:22",
         help="user@host:port, or a name of ~/.ssh/config."),
    Spec(id="sftp_path", label="directory", page=PLACE, kinds=_SFTP, required=True, hint="/backups/mastovault",
         help="Over there. Without a leading slash: below the login directory."),
    Spec(id="identity_file", label="SSH key", page=PLACE, kinds=_SFTP, hint="~/.ssh/id_ed25519",
         help="Empty: what SSH would use, the agent included."),
    Spec(id="password_command", label="password from", page=PLACE, kinds=_SFTP, hint="pass show nas",
         help="A command that prints the password, where there is no key; run without a shell."),
    Spec(id="offsite", label="off-site", page=MORE, kinds=_ALL, options=tuple(OFFSITE.items()),
         help="Whether it survives the loss of the building. Guessed: a directory does not, the others do."),
    Spec(id="price_per_gb_month", label="price of a GB", page=MORE, kinds=_ALL, hint="0.0125",
         help="What a gigabyte costs a month, to see what the backups cost. Empty: nothing is said of it."),
    Spec(id="currency", label="currency", page=MORE, kinds=_ALL, hint="USD",
         help="Three letters: EUR, USD, CHF."),
    Spec(id="storage_class", label="storage class", page=MORE, kinds=_S3, hint="STANDARD_IA",
         help="Empty: the bucket's default. Classes that must be thawed first cannot be restored from at once."),
    Spec(id="lock_days", label="lock days", page=MORE, kinds=_S3, hint="30",
         help="Puts every object under an Object Lock for that long: nobody can remove it before, prune neither."),
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class VaultDraft:
    """The choices of one wizard."""

    kind: Kind = "directory"
    texts: dict[str, str] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=lambda: {"credentials": "chain", "offsite": "guess"})

    @property
    def name(self) -> str:
        """What it is to be called."""
        return self._text("name")

    def specs(self, page: int) -> tuple[Spec, ...]:
        """The lines of the form on one page."""
        return tuple(
            spec
            for spec in SPECS
            if spec.page == page
            and self.kind in spec.kinds
            and spec.credentials in {"", self.chosen["credentials"] if self.kind == "s3" else ""}
        )

    def empty(self, page: int) -> str:
        """The first field that must be filled in and is not; empty when there is none."""
        return next((spec.id for spec in self.specs(page) if spec.required and not self._text(spec.id)), "")

    def lacks(self, page: int, taken: Collection[str]) -> str:
        """Why one cannot go on from page 2 or 3; empty when one can."""
        missing = self.empty(page)
        if missing:
            label = next(spec.label for spec in SPECS if spec.id == missing)
            return f"Fill in: {label}."
        if page == PLACE:
            if not HOST_NAME.fullmatch(self.name):
                return "A name holds letters, digits, dots, dashes and underscores, and begins with a letter or digit."
            if self.name in taken:
                return f"A vault named {self.name} is configured already; choose another name."
        return self._wrong(page)

    def values(self) -> dict[str, Any]:
        """The settings as they are saved. Raises `ConfigurationError`."""
        specs = {spec.id for page in (PLACE, MORE) for spec in self.specs(page)}
        settings: dict[str, Any] = {
            name: text
            for name in specs - {"name", "path", "bucket", "prefix", "address", "sftp_path", "credentials", "offsite"}
            if (text := self._text(name))
        }
        if "price_per_gb_month" in settings:
            settings["price_per_gb_month"] = _number(settings["price_per_gb_month"], "the price")
        else:
            settings.pop("currency", None)
        if "currency" in settings:
            settings["currency"] = settings["currency"].upper()
        if "lock_days" in settings:
            settings["lock_days"] = round(_number(settings["lock_days"], "the number of lock days"))
        if self.chosen["offsite"] != "guess":
            settings["offsite"] = self.chosen["offsite"] == "yes"
        values = vault_values(self._place(), settings)
        vault_config(values)
        return values

    def config(self) -> VaultConfig:
        """The same, checked. Raises `ConfigurationError`."""
        return vault_config(self.values())

    def _place(self) -> str:
        if self.kind == "directory":
            return self._text("path")
        if self.kind == "s3":
            return f"s3://{self._text('bucket')}/{self._text('prefix')}"
        path = self._text("sftp_path")
        return f"sftp://{self._text('address')}{path if path.startswith('/') else f'/./{path}'}"

    def _wrong(self, page: int) -> str:
        """What is wrong with what was typed, in a sentence that repeats none of it."""
        if page == PLACE and self.kind == "s3":
            if "/" in self._text("bucket") or ":" in self._text("bucket"):
                return "A bucket's name holds no slash and no colon; folders go into the prefix."
            endpoint = self._text("endpoint_url")
            if endpoint and not endpoint.startswith(("https://", "http://")):
                return "The endpoint begins with https:// (or http://)."
            if "@" in endpoint:
                return "No password belongs into the endpoint: choose where the credentials come from below."
            if self.chosen["credentials"] == "env":
                names = (self._text("access_key_env"), self._text("secret_key_env"))
                if not all(name in os.environ for name in names):
                    return "There is no variable of that name where this app runs. Type names, not keys."
        if page == PLACE and self.kind == "directory" and not self._text("path").startswith(("/", "~")):
            return "Write the whole path, from / or ~."
        try:
            self.values()
        except ConfigurationError as error:
            return f"{error.sentence}. {error.next_step}"
        return ""

    def _text(self, name: str) -> str:
        return self.texts.get(name, "").strip()


def _number(text: str, what: str) -> float:
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        number = float("nan")
    if not math.isfinite(number):
        raise ConfigurationError(f"{what} is no number", "Write it like 0.0125 or 30.")
    return number
