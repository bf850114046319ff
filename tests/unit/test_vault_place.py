"""What a vault's place means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.config.vault_place import vault_config, vault_values
from backends.errors import ConfigurationError


@pytest.mark.parametrize(
    ("place", "values"),
    [
        ("/srv/vault", {"type": "directory", "path": "/srv/vault"}),
        ("file:///srv/vault", {"type": "directory", "path": "/srv/vault"}),
        ("s3://backups", {"type": "s3", "bucket": "backups"}),
        ("s3://backups/a/b/", {"type": "s3", "bucket": "backups", "prefix": "a/b"}),
        ("sftp://me@nas:2222/srv/v", {"type": "sftp", "address": "me@nas:2222", "path": "/srv/v"}),
        ("sftp://nas/./v", {"type": "sftp", "address": "nas", "path": "v"}),
        ("sftp://nas/~/v/w", {"type": "sftp", "address": "nas", "path": "v/w"}),
    ],
)
def test_places(place: str, values: dict[str, str]) -> None:
    assert vault_values(place, {}) == values


def test_a_relative_directory_is_of_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert vault_values("vault", {})["path"] == str(tmp_path / "vault")


@pytest.mark.parametrize(
    ("place", "settings", "said"),
    [
        ("", {}, "needs a place"),
        ("s3://", {}, "names no bucket"),
        ("sftp://nas", {}, "names no directory"),
        ("sftp://me:secret@nas/v", {}, "a password does not belong"),
        ("~\0", {}, "no NUL"),
        ("~nobody-of-that-name/v", {}, "no user's home"),
        ("ftp://nas/v", {}, "no kind of vault"),
        ("/srv/v", {"region": "eu"}, "region does not go with a vault of the type directory"),
        ("s3://b", {"identity_file": "x"}, "identity_file does not go"),
        ("s3://b", {"price_per_gb_month": -1.0}, "price_per_gb_month"),
        ("s3://b", {"currency": "euros"}, "currency"),
    ],
)
def test_what_is_refused(place: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        vault_values(place, settings)
    assert "secret" not in caught.value.sentence + caught.value.next_step
    assert caught.value.next_step


def test_what_is_not_said_is_left_out() -> None:
    values = vault_values("s3://b", {"region": None, "endpoint_url": "https://x", "offsite": False})
    assert values == {"type": "s3", "bucket": "b", "endpoint_url": "https://x", "offsite": False}
    assert vault_config(values).offsite is False


@given(st.text(max_size=60) | st.sampled_from(["~", "s3://", "sftp://"]).flatmap(lambda s: st.text().map(s.__add__)))
def test_any_text_is_a_place_or_is_refused(text: str) -> None:
    try:
        values = vault_values(text, {})
    except ConfigurationError:
        return
    assert values["type"] in {"directory", "s3", "sftp"}
