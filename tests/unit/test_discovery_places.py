"""Where the database, Redis and media are, from the settings alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.config.schema import HostConfig
from backends.mastodon.database_place import database_place
from backends.mastodon.database_probe import fitting_dir
from backends.mastodon.installation import DatabasePlace, MediaKind, RedisPlace
from backends.mastodon.media_place import media_place, provider_of
from backends.mastodon.redis_roles import parse_redis_url, redis_roles
from backends.model import Secret

ROOT = "/home/mastodon/live"


def env(**values: str) -> dict[str, Secret]:
    return {name: Secret(value) for name, value in values.items()}


def database(overrides: dict[str, Any] | None = None, sockets: tuple[str, ...] = (), **values: str) -> DatabasePlace:
    host = HostConfig.model_validate({"address": "local", **(overrides or {})})
    return database_place(env(**values), host, sockets=sockets, user="mastodon", login_user="admin")


def test_defaults_are_mastodons() -> None:
    place = database()
    assert (place.host, place.port, place.name, place.user) == ("localhost", 5432, "mastodon_production", "mastodon")
    assert place.password is None
    assert place.as_user is None
    assert place.warnings == ()


def test_a_socket_without_a_password_is_peer_authentication() -> None:
    assert database(DB_HOST="/var/run/postgresql").as_user == "mastodon"
    assert database(DB_HOST="/var/run/postgresql", DB_PASS="x").as_user is None
    assert database({"database_user": "postgres"}, DB_HOST="/var/run/postgresql", DB_PASS="x").as_user == "postgres"


def test_the_login_user_needs_no_other() -> None:
    host = HostConfig(address="local")
    place = database_place(env(DB_HOST="/run/postgresql"), host, user="mastodon", login_user="mastodon")
    assert place.as_user is None


def test_an_empty_host_is_the_default_socket() -> None:
    place = database(DB_HOST="")
    assert place.host == "/var/run/postgresql"
    assert place.is_socket
    assert place.warnings
    assert database(sockets=("/tmp/.s.PGSQL.5432",), DB_HOST="").host == "/tmp"


def test_the_address_wins_over_the_parts() -> None:
    place = database(DATABASE_URL="postgres://u%40x:p%2Fw@db.example:5433/m?sslmode=require", DB_HOST="x", DB_USER="y")
    assert (place.host, place.port, place.name, place.user) == ("db.example", 5433, "m", "u@x")
    assert place.password == Secret("p/w")
    assert place.sslmode == "require"


def test_the_address_leaves_the_rest_to_the_parts() -> None:
    place = database(DATABASE_URL="postgresql:///masto?host=/run/pg", DB_PASS="w", DB_USER="u")
    assert (place.host, place.name, place.user, place.password) == ("/run/pg", "masto", "u", Secret("w"))


def test_an_address_that_cannot_be_read_is_said() -> None:
    place = database(DATABASE_URL="mysql://secret@x/y", DB_HOST="h")
    assert place.host == "h"
    assert len(place.warnings) == 1
    assert "secret" not in place.warnings[0]


def test_pgbouncer_is_gone_around() -> None:
    place = database(DB_HOST="localhost", DB_PORT="6432", PREPARED_STATEMENTS="false")
    assert place.port == 5432
    assert "PgBouncer" in place.warnings[0]
    assert database(PREPARED_STATEMENTS="false", DB_PORT="6543").port == 5432


def test_a_port_that_postgresql_itself_listens_on_is_kept() -> None:
    sockets = ("/var/run/postgresql/.s.PGSQL.5433",)
    assert database(sockets=sockets, PREPARED_STATEMENTS="false", DB_PORT="5433").port == 5433
    assert database(PREPARED_STATEMENTS="false").port == 5432


def test_the_configuration_wins() -> None:
    place = database({"database_port": 6432, "database_host": "10.0.0.2"}, DB_PORT="6432", PREPARED_STATEMENTS="false")
    assert (place.host, place.port, place.warnings) == ("10.0.0.2", 6432, ())


def test_a_port_that_is_none_is_said() -> None:
    place = database(DB_PORT="70000")
    assert place.port == 5432
    assert place.warnings


def test_fitting_programs() -> None:
    dirs = ("/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/17/bin", "/usr/pgsql-16/bin")
    assert fitting_dir(15, dirs) == dirs[0]
    assert fitting_dir(16, dirs) == dirs[2]
    assert fitting_dir(14, dirs) == dirs[0]
    assert fitting_dir(18, dirs) is None


def roles(override: str | None = None, **values: str) -> dict[str, RedisPlace]:
    return {place.role: place for place in redis_roles(env(**values), override)[0]}


def test_redis_defaults() -> None:
    found = roles()
    assert list(found) == ["base", "sidekiq", "cache"]
    assert all((each.host, each.port, each.database) == ("localhost", 6379, 0) for each in found.values())


def test_a_role_of_its_own_inherits_nothing() -> None:
    found = roles(REDIS_PASSWORD="x", REDIS_DB="3", SIDEKIQ_REDIS_HOST="q")
    assert found["base"].password == Secret("x")
    assert (found["sidekiq"].host, found["sidekiq"].password, found["sidekiq"].database) == ("q", None, 0)
    assert (found["cache"].password, found["cache"].database) == (Secret("x"), 3)


def test_parts_without_a_host_change_nothing() -> None:
    assert roles(SIDEKIQ_REDIS_PASSWORD="y", SIDEKIQ_REDIS_DB="7", REDIS_HOST="r")["sidekiq"].host == "r"
    assert roles(SIDEKIQ_REDIS_DB="7")["sidekiq"].database == 0


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:6380/2", RedisPlace(role="base", host="h", port=6380, database=2)),
        ("redis://:p%40w@h", RedisPlace(role="base", host="h", password=Secret("p@w"))),
        ("rediss://u:p@h/1", RedisPlace(role="base", host="h", database=1, user="u", password=Secret("p"), tls=True)),
        ("unix:///run/redis/redis.sock?db=4", RedisPlace(role="base", unix_path="/run/redis/redis.sock", database=4)),
        ("unix:/run/r.sock", RedisPlace(role="base", unix_path="/run/r.sock")),
        ("redis://[::1]:6379/0", RedisPlace(role="base", host="::1")),
    ],
)
def test_redis_urls(url: str, expected: RedisPlace) -> None:
    assert roles(REDIS_URL=url, REDIS_HOST="other")["base"] == expected


@pytest.mark.parametrize("url", ["http://h", "redis://h:99999", "unix://", "redis://[::1", "x"])
def test_a_url_that_cannot_be_read_is_said_without_showing_it(url: str) -> None:
    found, warnings = redis_roles(env(REDIS_URL=url))
    assert found[0].host == "localhost"
    assert warnings == ("REDIS_URL is no address of a Redis that is understood here",)


def test_sentinel() -> None:
    found = roles(REDIS_SENTINELS="a:1234, b", REDIS_SENTINEL_MASTER="m", REDIS_PASSWORD="p")
    assert all(each.sentinel and each.sentinel_master == "m" for each in found.values())
    assert (found["base"].host, found["base"].port) == ("a", 1234)
    assert not roles(REDIS_SENTINELS="a:1234")["base"].sentinel


def test_the_configured_redis_wins() -> None:
    assert roles("redis://mine:1", REDIS_URL="redis://theirs")["sidekiq"].host == "mine"


@given(st.text())
def test_any_redis_url_is_read(url: str) -> None:
    parse_redis_url("base", url)


@given(st.dictionaries(st.sampled_from(["DATABASE_URL", "DB_HOST", "DB_PORT", "DB_PASS", "DB_SSLMODE"]), st.text()))
def test_any_database_settings_give_a_place(values: dict[str, str]) -> None:
    host = HostConfig(address="local")
    place = database_place(env(**values), host, user="mastodon", login_user="admin")
    assert 1 <= place.port <= 65535
    assert place.host


def test_media_is_local_by_default() -> None:
    place = media_place({}, ROOT)
    assert (place.kind, place.path) == (MediaKind.LOCAL, f"{ROOT}/public/system")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/srv/media", "/srv/media"),
        ("public/other", f"{ROOT}/public/other"),
        (":rails_root/public/system", f"{ROOT}/public/system"),
        ("", f"{ROOT}/public/system"),
    ],
)
def test_media_root(path: str, expected: str) -> None:
    assert media_place(env(PAPERCLIP_ROOT_PATH=path), ROOT).path == expected


@pytest.mark.parametrize("value", ["True", "1", "yes", "true ", "false", ""])
def test_only_true_is_true(value: str) -> None:
    assert media_place(env(S3_ENABLED=value), ROOT).kind is MediaKind.LOCAL


def test_the_first_storage_wins() -> None:
    both = env(S3_ENABLED="true", SWIFT_ENABLED="true", AZURE_ENABLED="true")
    assert media_place(both, ROOT).kind is MediaKind.S3
    assert media_place(env(SWIFT_ENABLED="true", AZURE_ENABLED="true"), ROOT).kind is MediaKind.SWIFT
    azure = media_place(env(AZURE_ENABLED="true", AZURE_STORAGE_ACCOUNT="acc", AZURE_CONTAINER_NAME="c"), ROOT)
    assert (azure.kind, azure.bucket, azure.endpoint_url) == (MediaKind.AZURE, "c", "https://acc.blob.core.windows.net")


def test_s3() -> None:
    place = media_place(
        env(
            S3_ENABLED="true",
            S3_BUCKET="files",
            S3_ENDPOINT="https://s3.eu-central-1.wasabisys.com",
            S3_KEY_PREFIX="a",
            AWS_ACCESS_KEY_ID="k",
            AWS_SECRET_ACCESS_KEY="s",
        ),
        ROOT,
    )
    assert (place.provider, place.bucket, place.region, place.key_prefix) == ("Wasabi", "files", "us-east-1", "a")
    assert (place.access_key, place.secret_key, place.path) == (Secret("k"), Secret("s"), None)


@pytest.mark.parametrize(
    ("endpoint", "provider"),
    [
        (None, "Amazon S3"),
        ("https://s3.dualstack.eu-west-1.amazonaws.com", "Amazon S3"),
        ("https://storage.googleapis.com", "Google Cloud Storage"),
        ("https://s3.us-west-004.backblazeb2.com", "Backblaze B2"),
        ("https://ams3.digitaloceanspaces.com", "DigitalOcean Spaces"),
        ("https://s3.fr-par.scw.cloud", "Scaleway"),
        ("https://s3.gra.io.cloud.ovh.net", "OVHcloud"),
        ("https://fsn1.your-objectstorage.com", "Hetzner"),
        ("https://abc.r2.cloudflarestorage.com", "Cloudflare R2"),
        ("http://minio:9000", "MinIO"),
        ("s3.example.org", "S3 at s3.example.org"),
        ("https://notamazonaws.com", "S3 at notamazonaws.com"),
        ("https://[", "S3 at an unreadable address"),
    ],
)
def test_provider(endpoint: str | None, provider: str) -> None:
    assert provider_of(endpoint) == provider


@given(st.text())
def test_any_endpoint_has_a_name(endpoint: str) -> None:
    assert provider_of(endpoint)
