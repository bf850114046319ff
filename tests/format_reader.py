"""Another reader of vaults, written from docs/format.md alone: no line of the project's own is used.

    python tests/format_reader.py VAULT IDENTITY

reads every object of every snapshot in a copy of a vault, and says what is wrong with it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyrage
import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PLACE = re.compile(r"hosts/([^/]+)/(database|secrets|media|redis)/(\d{8}T\d{6}Z-[0-9a-f]{8})/manifest\.json")
DIGEST, SIGNED = 83, 253


@dataclass
class Snapshot:
    """One snapshot: its manifest, whether and by whom it is signed, the plain content of its objects by name."""

    manifest: dict[str, Any]
    signer: str
    objects: dict[str, Any] = field(default_factory=dict)
    files: dict[bytes, bytes] = field(default_factory=dict)
    """Media: the content of every file (of a link where it leads), by path."""


class Wrong(Exception):
    """The vault breaks a rule of the format."""


def snapshots(vault: Path, identity: str) -> Iterator[Snapshot]:
    """Every snapshot of a vault, all of it read. Raises `Wrong`."""
    if json.loads((vault / "mastovault.json").read_bytes())["format"] != 1:
        raise Wrong("another format")
    key = pyrage.x25519.Identity.from_str(identity)
    for path in sorted(vault.glob("hosts/*/*/*/manifest.json")):
        place = PLACE.fullmatch(path.relative_to(vault).as_posix())
        if place is None:
            continue
        snapshot = manifest(path.read_bytes(), place)
        for entry in snapshot.manifest["objects"]:
            snapshot.objects[entry["name"]] = plain(
                stored(vault, path.parent, snapshot.manifest["host"], entry), entry, key
            )
        snapshot.files = dict(media(snapshot))
        yield snapshot


def manifest(data: bytes, place: re.Match[str]) -> Snapshot:
    """A manifest that fits its place and its digest; with its signer when it is signed well."""
    found = json.loads(data)
    host, asset, name = place.groups()
    if found["format"] != 1 or (found["id"], found["host"], found["asset"]) != (f"{host}/{asset}/{name}", host, asset):
        raise Wrong(f"{place[0]} does not fit its place")
    if found["started_at"][:19].replace("-", "").replace(":", "") + "Z" != name[:16]:
        raise Wrong(f"{place[0]} is of another time")
    digest = hashlib.sha256(data[:-DIGEST]).hexdigest()
    if data[-DIGEST:] != b',\n  "sha256": "%s"\n}\n' % digest.encode():
        raise Wrong(f"{place[0]} was changed")
    end = re.fullmatch(rb',\n  "signed_by": "(.{44})",\n  "signature": "(.{88})"', data[-SIGNED:-DIGEST])
    if end is None:
        return Snapshot(found, "")
    try:
        signer = Ed25519PublicKey.from_public_bytes(base64.b64decode(end[1]))
        signer.verify(base64.b64decode(end[2]), b"mastovault manifest 1\n" + data[:-SIGNED])
    except InvalidSignature:
        raise Wrong(f"the signature of {place[0]} is wrong") from None
    return Snapshot(found, end[1].decode())


def stored(vault: Path, beside: Path, host: str, entry: dict[str, Any]) -> bytes:
    """The stored bytes of an object, which are those of the manifest."""
    if entry["key"] and not entry["key"].startswith(f"hosts/{host}/"):
        raise Wrong(f"{entry['key']} is out of its host's place")
    path: Path = vault / entry["key"] if entry["key"] else beside / entry["name"]
    data = path.read_bytes()
    if (len(data), hashlib.sha256(data).hexdigest()) != (entry["bytes"], entry["sha256"]):
        raise Wrong(f"{entry['name']} is not what was stored")
    return data


def plain(data: Any, entry: dict[str, Any], key: Any) -> Any:
    """The innermost bytes of an object."""
    for codec in reversed(entry["codecs"]):
        if codec == "age":
            data = pyrage.decrypt(data, [key])
        elif codec == "zstd":
            with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as frames:
                data = frames.read()
        else:
            raise Wrong(f"the codec {codec} is not known")
    if entry["plain_sha256"] and hashlib.sha256(data).hexdigest() != entry["plain_sha256"]:
        raise Wrong(f"{entry['name']} holds something else")
    return data


def media(snapshot: Snapshot) -> Iterator[tuple[bytes, bytes]]:
    """The files of the index, each out of its pack: by its offset, and by what tar says is there."""
    packs = {
        name.removesuffix(".tar.age"): data for name, data in snapshot.objects.items() if name.endswith(".tar.age")
    }
    tars = {pack: members(data) for pack, data in packs.items()}
    for line in snapshot.objects.get("files.ndjson.zst.age", b"").splitlines():
        entry = json.loads(line)
        path = base64.b64decode(entry["path_b64"]) if "path_b64" in entry else entry["path"].encode()
        member = tars[entry["pack"]][path]
        content = packs[entry["pack"]][entry["offset"] : entry["offset"] + entry["size"]]
        if hashlib.sha256(content).hexdigest() != entry["sha256"] or member.mode != entry["mode"]:
            raise Wrong(f"{path!r} is not what the index says")
        link = base64.b64decode(entry["link_b64"]) if "link_b64" in entry else entry.get("link", "").encode()
        if member.issym() != bool(link) or member.offset_data != entry["offset"]:
            raise Wrong(f"{path!r} is something else in its pack")
        yield path, link or content


def members(data: bytes) -> dict[bytes, tarfile.TarInfo]:
    """What a pack holds, by path."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name.encode("utf-8", "surrogateescape"): member for member in tar}


if __name__ == "__main__":
    secret = next(line for line in Path(sys.argv[2]).read_text().splitlines() if line.startswith("AGE-SECRET-KEY-"))
    for each in snapshots(Path(sys.argv[1]), secret):
        signed = f"signed by {each.signer}" if each.signer else "not signed"
        sys.stdout.write(f"{each.manifest['id']}  {len(each.objects)} objects, {len(each.files)} files, {signed}\n")
