"""Mastodon's role on a machine that has none yet; its password never crosses as it is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import unicodedata

from backends.model import Secret
from backends.restore.database_names import identifier, literal

_ROUNDS = 4096


def create_role_statement(role: str, password: Secret | None) -> str:
    """The CREATE ROLE; the password in it is the verifier that PostgreSQL would store, for a server may log this."""
    known = f" PASSWORD {literal(scram_verifier(password))}" if password else ""
    return f"CREATE ROLE {identifier(role)} LOGIN CREATEDB{known}"


def shown_create_role(role: str, password: Secret | None) -> str:
    """The same for people."""
    return f"CREATE ROLE {identifier(role)} LOGIN CREATEDB{' PASSWORD …' if password else ''}"


def scram_verifier(password: Secret, salt: bytes | None = None) -> str:
    """`SCRAM-SHA-256$<rounds>:<salt>$<stored key>:<server key>` (RFC 5802, 7677; PostgreSQL 10 and later)."""
    salt = salt if salt is not None else secrets.token_bytes(16)
    plain = password.reveal()
    # SASLprep of what occurs: ASCII stays; the rest is put into its canonical form.
    prepared = plain if plain.isascii() else unicodedata.normalize("NFKC", plain)
    salted = hashlib.pbkdf2_hmac("sha256", prepared.encode("utf-8", "surrogateescape"), salt, _ROUNDS)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored = hashlib.sha256(client).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${_ROUNDS}:{_text(salt)}${_text(stored)}:{_text(server)}"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
