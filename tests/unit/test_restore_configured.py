"""Where a machine without settings has its servers, by its configuration, is what its settings will say."""

from __future__ import annotations

import pytest

from backends.config.schema import HostConfig
from backends.mastodon.database_place import database_place
from backends.mastodon.installation import Installation, InstallKind
from backends.mastodon.redis_roles import redis_roles
from backends.model import Secret
from backends.restore.secrets_configured import configured

STORED = {
    "LOCAL_DOMAIN": "social.example",
    "SECRET_KEY_BASE": "0" * 128,
    "DB_HOST": "10.0.0.5",
    "DB_PORT": "6432",
    "DB_NAME": "social",
    "DB_USER": "social",
    "DB_PASS": "s3cret",
    "PREPARED_STATEMENTS": "false",
    "REDIS_HOST": "10.0.0.6",
    "REDIS_PASSWORD": "old",
    "SIDEKIQ_REDIS_URL": "redis://10.0.0.7/0",
    "PAPERCLIP_ROOT_PATH": "/srv/media",
}


def result(stored: dict[str, str], **config: object) -> dict[str, str] | None:
    """The settings that are written for a target with this configuration."""
    host = HostConfig.model_validate({"address": "root@new.example", **config})
    values = {name: Secret(value) for name, value in stored.items()}
    found = Installation(
        host="new",
        kind=InstallKind.NATIVE,
        root="/home/mastodon/live",
        user="mastodon",
        database=database_place(values, host),
        redis=redis_roles(values, host.redis_url)[0],
    )
    written = configured(found, values)
    return None if written is None else {name: value.reveal() for name, value in written.items()}


def test_without_a_word_in_the_configuration_the_snapshots_settings_stay() -> None:
    assert result({**STORED, "DB_PORT": "5432", "PREPARED_STATEMENTS": "true"}) is None
    assert result({"LOCAL_DOMAIN": "social.example"}) is None


def test_a_database_elsewhere_takes_the_place_of_the_snapshots_whole() -> None:
    written = result(STORED, database_host="/run/postgresql", database_port=5433)
    assert written == {
        "DB_HOST": "/run/postgresql",
        "DB_PORT": "5433",
        "DB_NAME": "social",
        "DB_USER": "social",
        "DB_PASS": "s3cret",
        "REDIS_HOST": "10.0.0.6",
        "REDIS_PASSWORD": "old",
        "SIDEKIQ_REDIS_URL": "redis://10.0.0.7/0",
        "PAPERCLIP_ROOT_PATH": "/srv/media",
    }
    url = {**STORED, "DATABASE_URL": "postgres://a:b@10.0.0.5:5432/c"}
    replaced = result(url, database_host="127.0.0.1")
    assert replaced is not None
    assert (replaced["DB_HOST"], replaced["DB_NAME"], replaced["DB_PASS"]) == ("127.0.0.1", "c", "b")
    assert "DATABASE_URL" not in replaced


def test_the_password_of_another_role_is_not_taken_along() -> None:
    written = result(STORED, database_host="127.0.0.1", database_user="other")
    assert written is not None
    assert written["DB_USER"] == "other"
    assert "DB_PASS" not in written


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:p%40ss@127.0.0.1:6400/2", "redis://:p%40ss@127.0.0.1:6400/2"),
        ("rediss://me:p@redis.example/0", "rediss://me:p@redis.example:6379/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("unix:///run/redis/redis.sock?db=3", "unix:///run/redis/redis.sock?db=3"),
    ],
)
def test_redis_elsewhere_is_written_as_one_address(url: str, expected: str) -> None:
    stored = {name: value for name, value in STORED.items() if not name.startswith(("DB_", "PREPARED"))}
    written = result(stored, redis_url=url)
    assert written is not None
    assert written["REDIS_URL"] == expected
    assert not {"REDIS_HOST", "REDIS_PASSWORD"} & set(written)
    assert written["SIDEKIQ_REDIS_URL"] == "redis://10.0.0.7/0"
    # What is written is read as the same server again.
    there = redis_roles({name: Secret(value) for name, value in written.items()})[0][0]
    assert there == redis_roles({}, url)[0][0]
