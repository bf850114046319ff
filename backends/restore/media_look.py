"""The look at a target's media tree before a restore: where it is, who may write it, what fits beside it."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field

from backends.assets.media_bucket import storage_name
from backends.connection.base import Command, Connection, lines_of, sh
from backends.errors import BecomeRefused, CommandFailed
from backends.mastodon.installation import MediaKind, MediaPlace
from backends.model import Asset
from backends.restore.base import Target
from backends.restore.media_stage import free_of
from backends.restore.plan import Finding, Look
from backends.untrusted import clean

_LOOK = r"""export LC_ALL=C
for program in find tar xargs sha256sum stat sort; do
  command -v "$program" >/dev/null 2>&1 || echo "missing $program"
done
case "$(find --version 2>/dev/null)" in *GNU*) ;; *) echo "notgnu find" ;; esac
case "$(tar --version 2>/dev/null)" in *GNU*) ;; *) echo "notgnu tar" ;; esac
command -v perl >/dev/null 2>&1 && echo "perl yes"
root=$1 anchor=
if [ -d "$root" ]; then
  if real=$(cd -P -- "$root" 2>/dev/null && pwd -P); then
    echo "state there"
    anchor=$real
    [ -r "$real" ] || echo "state unreadable"
    echo "owner $(stat -c %u:%g -- "$real")"
    [ -d "$real/cache" ] && echo "cache yes"
    beside=$real parent=${real%/*}
    parent=${parent:-/}
    if [ -w "$parent" ] && [ -x "$parent" ] && [ "$real" != / ] &&
      [ "$(stat -c '%d %m' -- "$parent")" = "$(stat -c '%d %m' -- "$real")" ]; then beside=$parent; fi
  else
    echo "state unreadable"
  fi
elif [ -h "$root" ]; then echo "state dangling"
elif [ -e "$root" ]; then echo "state nodirectory"
else
  echo "state absent"
  above=$root
  until [ -d "$above" ]; do above=${above%/*}; above=${above:-/}; done
  rest=${root#"$above"}
  anchor=$(cd -P -- "$above" 2>/dev/null && pwd -P) || anchor=
  real=${anchor%/}/${rest#/} beside=$anchor
  [ "${rest#/}" = "${rest##*/}" ] && echo "parent yes"
fi
if [ -n "$anchor" ]; then
  echo "anchor $anchor"
  echo "real $real"
  echo "beside $beside"
  if [ -w "$anchor" ] && [ -x "$anchor" ]; then echo "write yes"; fi
  echo "room $(stat -f -c '%a %S %c %d' -- "$beside")"
fi
if uid=$(id -u -- "$2" 2>/dev/null); then echo "user $uid:$(id -g -- "$2")"; fi
"""


@dataclass(frozen=True, slots=True)
class Site:
    """What is at the root, seen as one user."""

    as_user: str | None
    reader: str
    said: dict[str, str] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()
    refused: str = ""

    @property
    def state(self) -> str:
        """`there`, `unreadable`, `dangling`, `nodirectory` or `absent`."""
        return self.said.get("state", "")

    @property
    def usable(self) -> bool:
        """Whether files can be written there as this user."""
        return self.state in {"there", "absent"} and "write" in self.said

    @property
    def room(self) -> tuple[int, int | None] | None:
        """Free bytes and inodes where files are staged."""
        return free_of(self.said.get("room", ""))


def look_at(target: Target, root: str) -> Site:
    """Look at the root with each right that there is until one suffices; else as the first of them.

    Raises:
        ConnectionFailed: the connection is gone.
    """
    own = target.installation.user
    rights: list[str | None] = [target.root]
    rights += [user for user in (own if target.become != "none" else None, None) if user not in rights]
    first: Site | None = None
    refused = ""
    for right in rights:
        try:
            seen = _look_as(target, root, right, refused)
        except BecomeRefused as error:
            refused = refused or error.sentence
            continue
        if seen.usable:
            return seen
        first = first or seen
    return first or Site(None, target.connection.login_user, refused=refused)


def _look_as(target: Target, root: str, as_user: str | None, refused: str) -> Site:
    connection = target.connection
    said: dict[str, str] = {}
    lacking = []
    try:
        answer = connection.run(Command(sh(_LOOK, root, target.installation.user), as_user=as_user), timeout=30)
    except CommandFailed:
        return Site(as_user, as_user or connection.login_user, refused=refused)
    for line in lines_of(answer):
        word, _, rest = line.partition(" ")
        if word in {"missing", "notgnu"}:
            lacking.append(clean(rest, 20))
        else:
            said[word] = rest
    reader = clean(as_user or connection.login_user, 40)
    return Site(as_user, reader, said, tuple(dict.fromkeys(lacking)), refused)


def trouble(site: Site, target: Target, root: str) -> Finding | None:
    """Why nothing can be restored there, and the way out."""
    host, shown = target.connection.host, clean(root, 200)
    state = site.state
    if site.lacking:
        return _block(
            f"{host} lacks GNU {', '.join(site.lacking)}, needed to restore media.",
            "Install the packages findutils, tar and coreutils there.",
        )
    if state == "dangling":
        return _block(f"{shown} on {host} is a symbolic link that leads nowhere.", "Mount the disk that it leads to.")
    if state == "nodirectory":
        return _block(f"{shown} on {host} is no directory.", "Check PAPERCLIP_ROOT_PATH in .env.production.")
    if state == "absent" and "parent" not in site.said and not target.bare:
        above = clean(posixpath.dirname(root), 200)
        return _block(f"{above} is not on {host}.", "Mount the disk of the media, or make the directory.")
    if state in {"", "unreadable"} or not site.usable:
        what = "read" if state in {"", "unreadable"} else "written"
        return _block(
            f"{shown} on {host} cannot be {what} as {site.reader}.",
            site.refused or "Connect as the user that owns the media, or set `become` for this host.",
        )
    if _owner(site) is None and is_root(site, target.connection):
        user = clean(target.installation.user, 60)
        return _block(f"There is no user {user} on {host}.", f"Make it: adduser --disabled-password {user}")
    return None


def owner_of(site: Site) -> str:
    """`uid:gid` for files and directories whose owner is not known on the target."""
    return _owner(site) or "0:0"


def _owner(site: Site) -> str | None:
    found = site.said.get("user") or site.said.get("owner", "")
    uid, _, gid = found.partition(":")
    return found if uid.isdigit() and gid.isdigit() else None


def is_root(site: Site, connection: Connection) -> bool:
    """Whether commands run as root, who may give files to anybody."""
    return (site.as_user or connection.login_user) == "root"


def elsewhere(place: MediaPlace | None, target: Target) -> Look | None:
    """The look at media that are not in a directory; None when they are."""
    if place is None or (place.kind is MediaKind.LOCAL and not place.path):
        host = target.connection.host
        return Look(
            findings=(_block(f"Where {host} keeps its media is not known.", "Restore its settings with them."),)
        )
    if place.kind is MediaKind.LOCAL:
        return None
    kept = storage_name(place)
    note = Finding(
        level="note",
        text=f"The media are kept by {kept}: nothing of them is restored here.",
        way_out="Files of the snapshot for a bucket: `mastovault restore --to DIR` writes them here.",
        asset=Asset.MEDIA,
    )
    return Look(findings=(note,), untouched=(f"the media at {kept}",))


def _block(text: str, way_out: str) -> Finding:
    return Finding(level="block", text=text, way_out=way_out, asset=Asset.MEDIA)
