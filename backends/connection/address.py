"""How a host's `address` is written: `user@host:port`, `[v6]:port`, an alias of ~/.ssh/config, or `local`."""

from __future__ import annotations

from dataclasses import dataclass

from backends.errors import ConfigurationError
from backends.untrusted import clean

LOCAL = "local"
_FORMS = "write it as user@host:port, user@[2001:db8::1]:port, an alias from ~/.ssh/config, or local"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a host is, as far as its address says; what is None comes from ~/.ssh/config or the defaults."""

    host: str
    user: str | None = None
    port: int | None = None


def parse_address(text: str) -> Address:
    """Read an address.

    A name with several colons and no brackets is an IPv6 address without a port.

    Raises:
        ConfigurationError: it has none of the known forms.
    """
    rest, user = text, None
    if "@" in text:
        # A user name may hold an @ (LDAP), a host name never does.
        user, _, rest = text.rpartition("@")
        _require(bool(user) and not user.startswith("-") and not _unfit(user, also=":"), text)
    host, port = _split_port(rest, text)
    _require(bool(host) and not host.startswith("-") and not _unfit(host, also="@/[]"), text)
    return Address(host, user, port)


def _split_port(rest: str, text: str) -> tuple[str, int | None]:
    if rest.startswith("["):
        host, closed, after = rest[1:].partition("]")
        _require(bool(closed) and (not after or after.startswith(":")), text)
        return host, _port(after[1:], text) if after else None
    if rest.count(":") == 1:
        host, _, port = rest.partition(":")
        return host, _port(port, text)
    return rest, None


def _port(digits: str, text: str) -> int:
    _require(digits.isascii() and digits.isdigit() and len(digits) <= 5 and 1 <= int(digits) <= 65535, text)
    return int(digits)


def _unfit(part: str, *, also: str) -> bool:
    return any(character.isspace() or not character.isprintable() or character in also for character in part)


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ConfigurationError(f"the address {clean(text, 200)!r} cannot be read", _FORMS)
