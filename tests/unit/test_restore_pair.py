"""Secrets on a database: what opens, what does not, and what was locked before."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from backends.lab.rails_encryption import RailsCipher
from backends.model import Secret
from backends.restore.pair import judge
from backends.restore.pair_early import differing_keys

KEYS = ("ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY", "ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT")
RIGHT = {KEYS[0]: Secret("p" * 32), KEYS[1]: Secret("s" * 32)}
WRONG = {KEYS[0]: Secret("q" * 32), KEYS[1]: Secret("s" * 32)}
CIPHER = RailsCipher("p" * 32, "s" * 32)
OTHER = RailsCipher("o" * 32, "s" * 32)


def legacy(secret: str) -> list[str]:
    """As attr_encrypted stored the secrets of two-factor logins up to 4.2."""
    salt, nonce = os.urandom(16), os.urandom(12)
    key = hashlib.pbkdf2_hmac("sha1", secret.encode(), salt, 2000, 32)
    sealed = AESGCM(key).encrypt(nonce, b"JBSWY3DPEHPK3PXP", None)
    return [
        base64.encodebytes(sealed).decode(),
        base64.b64encode(nonce).decode(),
        "_" + base64.b64encode(salt).decode(),
    ]


def test_right_secrets_open_and_wrong_ones_do_not() -> None:
    samples = {"keypairs.private_key": [CIPHER.encrypt("pem" * 900)], "users.otp_secret": [CIPHER.encrypt("otp")]}
    assert judge(samples, [], RIGHT).state == "opens"
    assert judge(samples, [], WRONG).state == "locked"
    assert "signing keys" in judge(samples, [], WRONG).what
    assert judge(samples, [], {}).state == "locked"


def test_one_of_the_newest_values_is_enough() -> None:
    """A server that lost its keys before keeps values that nothing opens."""
    samples = {"users.otp_secret": [CIPHER.encrypt("new"), OTHER.encrypt("old")]}
    assert judge(samples, [], RIGHT).state == "opens"
    mixed = {"keypairs.private_key": [CIPHER.encrypt("new")], "users.otp_secret": [OTHER.encrypt("old")]}
    result = judge(mixed, [], RIGHT)
    assert result.state == "opens"
    assert "though not the two-factor" in result.what


def test_what_is_not_encrypted_proves_nothing() -> None:
    assert judge({}, [], RIGHT).state == "nothing_encrypted"
    assert judge({"keypairs.private_key": ["-----BEGIN", "", "{}"]}, [], {}).state == "nothing_encrypted"


@pytest.mark.parametrize(("secret", "state"), [("right", "opens"), ("wrong", "locked"), ("", "locked")])
def test_an_old_dump_needs_otp_secret(secret: str, state: str) -> None:
    result = judge({}, [legacy("right")], {"OTP_SECRET": Secret(secret)} if secret else {})
    assert result.state == state
    both = judge(
        {"users.otp_secret": [CIPHER.encrypt("x")]}, [legacy("right")], {**RIGHT, "OTP_SECRET": Secret(secret)}
    )
    assert both.state == state
    assert ("OTP_SECRET" in both.what) is True


ODD: Any = st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=6)


@given(st.lists(st.text(max_size=60), max_size=2), st.lists(ODD, max_size=2))
def test_nothing_in_a_database_breaks_the_check(values: list[str], old: list[Any]) -> None:
    result = judge({"users.otp_secret": values}, old, {"OTP_SECRET": Secret("x")})
    assert result.state in {"locked", "nothing_encrypted"}
    assert all(value not in result.what for value in values if len(value) > 30)


def test_keys_are_compared_by_name_only() -> None:
    assert differing_keys(RIGHT, RIGHT) == []
    assert differing_keys(RIGHT, WRONG) == [KEYS[0]]
    assert differing_keys({}, RIGHT) is None
    assert differing_keys({"OTP_SECRET": Secret("x")}, {}) == ["OTP_SECRET"]
