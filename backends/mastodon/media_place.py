"""Where uploads are, from the settings alone (config/initializers/paperclip.rb: the first that is enabled wins)."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from urllib.parse import urlsplit

from backends.mastodon.installation import MediaKind, MediaPlace
from backends.model import Secret

_PROVIDERS = (
    ("amazonaws.com", "Amazon S3"),
    ("amazonaws.com.cn", "Amazon S3"),
    ("wasabisys.com", "Wasabi"),
    ("googleapis.com", "Google Cloud Storage"),
    ("backblazeb2.com", "Backblaze B2"),
    ("digitaloceanspaces.com", "DigitalOcean Spaces"),
    ("scw.cloud", "Scaleway"),
    ("ovh.net", "OVHcloud"),
    ("ovh.us", "OVHcloud"),
    ("your-objectstorage.com", "Hetzner"),
    ("r2.cloudflarestorage.com", "Cloudflare R2"),
    ("linodeobjects.com", "Akamai (Linode)"),
    ("vultrobjects.com", "Vultr"),
    ("contabostorage.com", "Contabo"),
    ("idrivee2.com", "IDrive e2"),
    ("exo.io", "Exoscale"),
    ("upcloudobjects.com", "UpCloud"),
    ("ionoscloud.com", "IONOS"),
    ("storjshare.io", "Storj"),
)


def media_place(environment: Mapping[str, Secret], root: str) -> MediaPlace:
    """Where uploads are. A storage is on only when its switch is exactly `true`.

    Args:
        environment: the effective settings.
        root: the code's directory, which `public/system` lies under by default.
    """
    get = _Reader(environment)
    if get("S3_ENABLED") == "true":
        return _s3(get)
    if get("SWIFT_ENABLED") == "true":
        return _swift(get)
    if get("AZURE_ENABLED") == "true":
        return _azure(get)
    path = get("PAPERCLIP_ROOT_PATH").replace(":rails_root", root) or posixpath.join(root, "public", "system")
    return MediaPlace(kind=MediaKind.LOCAL, path=posixpath.normpath(posixpath.join(root, path)))


def provider_of(endpoint_url: str | None) -> str:
    """Whose object storage answers at an S3 endpoint; no endpoint is Amazon's."""
    if not endpoint_url:
        return "Amazon S3"
    host = _host(endpoint_url)
    for domain, name in _PROVIDERS:
        if host == domain or host.endswith("." + domain):
            return name
    return "MinIO" if "minio" in host else f"S3 at {host or 'an unreadable address'}"


def _host(url: str) -> str:
    try:
        return (urlsplit(url if "://" in url else f"https://{url}").hostname or "").lower()
    except ValueError:
        return ""


class _Reader:
    def __init__(self, environment: Mapping[str, Secret]) -> None:
        self._environment = environment

    def __call__(self, name: str, default: str = "") -> str:
        return self.secret(name).reveal() or default

    def secret(self, name: str) -> Secret:
        return self._environment.get(name, Secret(""))


def _s3(get: _Reader) -> MediaPlace:
    endpoint = get("S3_ENDPOINT") or None
    return MediaPlace(
        kind=MediaKind.S3,
        provider=provider_of(endpoint),
        bucket=get("S3_BUCKET"),
        region=get("S3_REGION", "us-east-1"),
        endpoint_url=endpoint,
        key_prefix=get("S3_KEY_PREFIX"),
        access_key=get.secret("AWS_ACCESS_KEY_ID") or None,
        secret_key=get.secret("AWS_SECRET_ACCESS_KEY") or None,
    )


def _swift(get: _Reader) -> MediaPlace:
    endpoint = get("SWIFT_AUTH_URL")
    host = _host(endpoint) if endpoint else ""
    return MediaPlace(
        kind=MediaKind.SWIFT,
        provider=f"Swift at {host}" if host else "Swift",
        bucket=get("SWIFT_CONTAINER"),
        region=get("SWIFT_REGION"),
        endpoint_url=endpoint or None,
        access_key=get.secret("SWIFT_USERNAME") or None,
        secret_key=get.secret("SWIFT_PASSWORD") or None,
    )


def _azure(get: _Reader) -> MediaPlace:
    account = get("AZURE_STORAGE_ACCOUNT")
    return MediaPlace(
        kind=MediaKind.AZURE,
        provider="Azure Blob Storage",
        bucket=get("AZURE_CONTAINER_NAME"),
        endpoint_url=f"https://{account}.blob.core.windows.net" if account else None,
        access_key=get.secret("AZURE_STORAGE_ACCOUNT") or None,
        secret_key=get.secret("AZURE_STORAGE_ACCESS_KEY") or None,
    )
