"""Each host's `.env.production`, with every secret that its Mastodon version asks for."""

from __future__ import annotations

import base64
import secrets
import string
from collections.abc import Mapping

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from backends.embedded.redis_server import RedisServer
from backends.lab.bucket import REGION, BucketServer
from backends.lab.database import DatabaseLogin
from backends.lab.fleet_plan import HostPlan

_ALPHANUMERIC = string.ascii_letters + string.digits


def record_encryption_keys() -> dict[str, str]:
    """New ACTIVE_RECORD_ENCRYPTION_* values, as `bin/rails db:encryption:init` prints them."""
    return {
        f"ACTIVE_RECORD_ENCRYPTION_{name}": "".join(secrets.choice(_ALPHANUMERIC) for _ in range(32))
        for name in ("DETERMINISTIC_KEY", "KEY_DERIVATION_SALT", "PRIMARY_KEY")
    }


def settings(
    plan: HostPlan,
    database: DatabaseLogin,
    redis: RedisServer,
    encryption: Mapping[str, str],
    bucket: BucketServer | None,
) -> dict[str, str]:
    """All settings of one host by name."""
    private, public = _vapid()
    values = {
        "LOCAL_DOMAIN": plan.domain,
        "SINGLE_USER_MODE": "false",
        "SECRET_KEY_BASE": secrets.token_hex(64),
        **encryption,
        "VAPID_PRIVATE_KEY": private,
        "VAPID_PUBLIC_KEY": public,
        "DB_HOST": database.host,
        "DB_PORT": str(database.port),
        "DB_NAME": database.name,
        "DB_USER": database.user,
        "DB_PASS": database.password,
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis.port),
        "REDIS_PASSWORD": redis.password,
        "SMTP_SERVER": "localhost",
        "SMTP_PORT": "25",
        "SMTP_FROM_ADDRESS": f"Mastodon <notifications@{plan.domain}>",
    }
    if bucket is not None:
        values |= {
            "S3_ENABLED": "true",
            "S3_BUCKET": f"{plan.name}-media",
            "S3_REGION": REGION,
            "S3_PROTOCOL": "http",
            "S3_HOSTNAME": f"127.0.0.1:{bucket.port}",
            "S3_ENDPOINT": bucket.endpoint_url,
            "AWS_ACCESS_KEY_ID": bucket.access_key,
            "AWS_SECRET_ACCESS_KEY": bucket.secret_key,
        }
    else:
        values["S3_ENABLED"] = "false"
    return values


def written(values: Mapping[str, str]) -> str:
    """The settings as a dotenv file, quoted where the setup assistant quotes."""
    lines = ["# Generated with mastodon:setup", ""]
    lines += [f"{name}='{value}'" if " " in value else f"{name}={value}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def _vapid() -> tuple[str, str]:
    """A P-256 key pair in unpadded-length base64url, as the web-push gem writes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_numbers().private_value.to_bytes(32, "big")
    public = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return base64.urlsafe_b64encode(private).decode(), base64.urlsafe_b64encode(public).decode()
