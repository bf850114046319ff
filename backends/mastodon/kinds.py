"""How a Mastodon was installed, and what this release says about the kinds it cannot back up yet."""

from __future__ import annotations

from collections.abc import Sequence

from backends.errors import DiscoveryFailed
from backends.mastodon.installation import Installation, InstallKind
from backends.mastodon.look import Look
from backends.mastodon.systemd import Unit

_WHAT = {
    InstallKind.DOCKER: "runs in containers (docker compose)",
    InstallKind.LINUXSERVER: "runs in the linuxserver.io container",
    InstallKind.YUNOHOST: "was installed by YunoHost, which keeps the master copy of its secrets in its own settings",
    InstallKind.NIXOS: "was installed by NixOS, which keeps its secrets in files of its own",
    InstallKind.KUBERNETES: "runs in Kubernetes, which a login on one machine does not reach",
    InstallKind.UNKNOWN: "was installed in a way that is not recognised",
}
NEXT_STEP = "This release backs up native installations; the others are recognised only. docs/discovery.md says more."


def explain(kind: InstallKind) -> str:
    """Why a kind cannot be backed up, as the rest of a sentence about the Mastodon; empty when it can."""
    return "" if kind.supported else f"{_WHAT[kind]}: this release recognises it but cannot back it up yet"


def require_supported(installation: Installation) -> None:
    """Refuse to work on an installation of a kind that this release only recognises.

    Raises:
        DiscoveryFailed: it is one, with the kind and the reason.
    """
    if not installation.kind.supported:
        raise DiscoveryFailed(f"Mastodon on {installation.host} {explain(installation.kind)}", NEXT_STEP)


def kind_of(look: Look, root: str, units: Sequence[Unit]) -> InstallKind:
    """The kind of the installation at `root`, which `units` run (`root` is empty when there is none)."""
    if look.nixos and (not root or root.startswith("/nix/store/")):
        return InstallKind.NIXOS
    if root and look.yunohost and root.startswith("/var/www/"):
        return InstallKind.YUNOHOST
    if root.startswith("/nix/store/"):
        return InstallKind.NIXOS
    # A clone of the code beside containers is how docker compose is set up; services that run it make it native.
    if look.containers and not units:
        own = any("linuxserver/" in container.image for container in look.containers)
        return InstallKind.LINUXSERVER if own else InstallKind.DOCKER
    return InstallKind.NATIVE if root else InstallKind.UNKNOWN
