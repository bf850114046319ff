"""Which secrets a version needs, how they look, and whether they open the database."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import string
import zlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.lab.rails_encryption import RailsCipher
from backends.mastodon.key_check import ENCRYPTION_KEYS, check_keys, decrypt, is_encrypted, opens, required_keys
from backends.model import Secret


def vapid() -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_numbers().private_value.to_bytes(32, "big")
    public = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return base64.urlsafe_b64encode(private).decode(), base64.urlsafe_b64encode(public).decode().rstrip("=")


def environment(**changed: str | None) -> dict[str, Secret]:
    private, public = vapid()
    letters = string.ascii_letters + string.digits
    values: dict[str, str | None] = {
        "SECRET_KEY_BASE": secrets.token_hex(64),
        **{name: "".join(secrets.choice(letters) for _ in range(32)) for name in ENCRYPTION_KEYS},
        "VAPID_PRIVATE_KEY": private,
        "VAPID_PUBLIC_KEY": public,
        **changed,
    }
    return {name: Secret(value) for name, value in values.items() if value is not None}


@pytest.mark.parametrize(
    ("version", "otp", "encryption"),
    [("4.2.10", True, False), ("4.3.0", True, True), ("4.4.1", False, True), ("4.7.0-alpha.2", False, True)],
)
def test_required_keys_depend_on_the_version(version: str, otp: bool, encryption: bool) -> None:
    keys = required_keys(version)
    assert ("OTP_SECRET" in keys) is otp
    assert (set(ENCRYPTION_KEYS) <= set(keys)) is encryption
    assert {"SECRET_KEY_BASE", "VAPID_PRIVATE_KEY", "VAPID_PUBLIC_KEY"} <= set(keys)


def test_a_whole_environment_is_fine() -> None:
    assert check_keys("4.6.3", environment()).warnings == ()


def test_missing_keys_are_named_with_the_version() -> None:
    check = check_keys("4.6.3", environment(ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY=None, VAPID_PUBLIC_KEY=""))
    assert check.missing == ("ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY", "VAPID_PUBLIC_KEY")
    assert "ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY is missing, which Mastodon 4.6.3 needs" in check.warnings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY_BASE", "0123456789abcdef" * 7),
        ("SECRET_KEY_BASE", "changeme"),
        ("ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY", "short-value"),
        ("ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT", "x" * 16 + " " + "y" * 16),
        ("VAPID_PRIVATE_KEY", "not base64!"),
        ("VAPID_PUBLIC_KEY", base64.urlsafe_b64encode(bytes(65)).decode()),
    ],
)
def test_malformed_keys_are_named_and_never_shown(name: str, value: str) -> None:
    check = check_keys("4.6.3", environment(**{name: value}))
    assert check.malformed == (name,)
    assert any(warning.startswith(f"{name} is malformed") for warning in check.warnings)
    assert value not in "".join(check.warnings)


def test_the_test_value_is_named() -> None:
    value = "test_primary_key_DO_NOT_USE_IN_PRODUCTION"
    check = check_keys("4.6.3", environment(ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY=value))
    assert any("test value" in warning for warning in check.warnings)


def test_vapid_keys_of_two_pairs_are_told() -> None:
    assert check_keys("4.6.3", environment(VAPID_PUBLIC_KEY=vapid()[1])).warnings == (
        "VAPID_PRIVATE_KEY and VAPID_PUBLIC_KEY do not belong together",
    )


def test_nothing_is_said_about_a_value_that_a_command_makes() -> None:
    assert check_keys("4.6.3", environment(SECRET_KEY_BASE="$(cat key)"), {"SECRET_KEY_BASE"}).warnings == ()


@given(st.dictionaries(st.sampled_from(["SECRET_KEY_BASE", *ENCRYPTION_KEYS, "VAPID_PRIVATE_KEY"]), st.text()))
def test_any_value_is_checked_without_showing_it(values: dict[str, str]) -> None:
    check = check_keys("4.6.3", {name: Secret(value) for name, value in values.items()})
    assert all(value not in check.warnings for value in values.values())


def sealed(env: dict[str, Secret], text: bytes, *, digest: str = "sha256", compress: bool = False) -> str:
    """A value as activerecord/encryption writes it."""
    key = hashlib.pbkdf2_hmac(
        digest,
        env["ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY"].reveal().encode(),
        env["ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT"].reveal().encode(),
        2**16,
        32,
    )
    iv = os.urandom(12)
    whole = AESGCM(key).encrypt(iv, zlib.compress(text) if compress else text, None)
    headers: dict[str, Any] = {"iv": base64.b64encode(iv).decode(), "at": base64.b64encode(whole[-16:]).decode()}
    if compress:
        headers["c"] = True
    return json.dumps({"p": base64.b64encode(whole[:-16]).decode(), "h": headers})


@pytest.mark.parametrize("digest", ["sha256", "sha1"])
@pytest.mark.parametrize("compress", [False, True])
def test_the_right_secrets_open_a_value(digest: str, compress: bool) -> None:
    env, text = environment(), b"-----BEGIN RSA PRIVATE KEY-----\n" * 40
    value = sealed(env, text, digest=digest, compress=compress)
    assert is_encrypted(value)
    assert opens(env, value)
    assert decrypt(env, value) == text


def test_it_agrees_with_another_hand() -> None:
    env, text = environment(), "-----BEGIN PRIVATE KEY-----\n" * 20
    names = ("ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY", "ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT")
    cipher = RailsCipher(*(env[name].reveal() for name in names))
    assert decrypt(env, cipher.encrypt(text)) == text.encode()
    assert decrypt(env, cipher.encrypt("short")) == b"short"


def test_other_secrets_do_not_open_it() -> None:
    env = environment()
    value = sealed(env, b"secret")
    assert not opens({**env, "ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY": Secret("x" * 32)}, value)
    assert not opens({**env, "ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT": Secret("x" * 32)}, value)
    assert not opens({}, value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.sampled_from(["p", "h", "iv", "at", "c"]), each),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.text() | _JSON.map(json.dumps))
def test_any_other_value_opens_nothing_and_raises_nothing(value: str) -> None:
    assert not opens({"ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY": Secret("a")}, value)
    is_encrypted(value)
