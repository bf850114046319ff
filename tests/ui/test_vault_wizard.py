"""The wizard that adds a vault: every page, the proof, and that nothing is left behind before the last button."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from textual.pilot import Pilot

from backends.config.schema import S3Vault, SftpVault
from tests.ui import given_storage
from tests.ui.driving import press, running, screen_text, write
from tests.ui.test_wizard import told, until
from tui.app import MastovaultApp
from tui.screens.dialog import Confirm
from tui.screens.storage import StorageScreen
from tui.screens.sync import SyncScreen
from tui.screens.vault_check import TrustKey
from tui.vault_wizard.draft import SPECS, VaultDraft
from tui.vault_wizard.screen import VaultWizard
from tui.widgets.choice import Choice
from tui.wizard.page import Field

BUCKET = ("4", "a", "j", "enter")
"""From the fleet to the form of a bucket."""


def wizard(app: MastovaultApp) -> VaultWizard:
    assert isinstance(app.screen, VaultWizard)
    return app.screen


async def bucket(app: MastovaultApp, pilot: Pilot[Any], *, pages: int = 0) -> None:
    """Fill in a bucket, and go so many pages on."""
    await press(pilot, *BUCKET)
    await write(pilot, "offsite")
    await press(pilot, "enter")
    await write(pilot, "my-backups")
    await press(pilot, *["enter"] * pages)
    if pages > 1:
        await until(pilot, lambda: wizard(app).report is not None, "the proof")


async def test_a_bucket_is_proved_then_saved_then_filled() -> None:
    source = given_storage.source()
    async with running(source) as (app, pilot):
        await bucket(app, pilot, pages=2)
        assert "Everything works" in screen_text(app)
        assert not any(call[0] == "add" for call in source.done)
        await press(pilot, "enter")
        assert 'bucket = "my-backups"' in screen_text(app)
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm), "the offer")
        values = {"type": "s3", "bucket": "my-backups"}
        assert [call for call in source.done if call[0] == "add"] == [("add", "offsite", values)]
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, SyncScreen), "the plan")
        assert app.screen.target == "offsite"  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", range(1, 6))
async def test_leaving_from_any_page_saves_nothing(page: int) -> None:
    source = given_storage.source()
    async with running(source) as (app, pilot):
        if page == 1:
            await press(pilot, "4", "a")
        else:
            await bucket(app, pilot, pages=page - 2)
        assert wizard(app).page == page
        await press(pilot, "escape")
        assert isinstance(app.screen, StorageScreen)
        assert told(app) == "Nothing has been saved."
        assert not any(call[0] == "add" for call in source.done)


async def test_what_cannot_be_used_is_not_saved_and_can_be_tried_again() -> None:
    source = given_storage.source(reports=[given_storage.BROKEN, given_storage.APPENDING])
    async with running(source) as (app, pilot):
        await bucket(app, pilot, pages=2)
        assert "there is no bucket" in screen_text(app)
        await press(pilot, "enter")
        assert wizard(app).page == 4
        assert "cannot be used" in told(app)
        await press(pilot, "R")
        await until(pilot, lambda: "Usable" in screen_text(app), "the second proof")
        await press(pilot, "enter")
        assert "prune may not" in screen_text(app)


async def test_another_place_is_proved_anew_and_the_same_one_is_not() -> None:
    source = given_storage.source()
    async with running(source) as (app, pilot):
        await bucket(app, pilot, pages=2)
        await press(pilot, "backspace")
        await press(pilot, "enter")
        assert len(source.done) == 1
        await press(pilot, "2")
        await until(pilot, lambda: wizard(app).page == 2, "the form")
        await press(pilot, "down")
        await write(pilot, "2")
        await press(pilot, "enter", "enter")
        await until(pilot, lambda: len(source.done) == 2, "the second proof")
        assert source.done[1][2].bucket == "my-backups2"


async def test_the_key_of_an_unknown_server_is_shown_and_accepted_by_hand() -> None:
    source = given_storage.source(reports=[given_storage.UNKNOWN_KEY, given_storage.GOOD])
    async with running(source) as (app, pilot):
        await press(pilot, "4", "a", "G", "enter")
        for text in ("box", "backup@nas2", "/srv/x"):
            await write(pilot, text)
            await press(pilot, "enter")
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, TrustKey), "the key")
        assert given_storage.SHOWN.fingerprint in screen_text(app)
        await press(pilot, "right", "enter")
        await until(pilot, lambda: "Everything works" in screen_text(app), "the second proof")
        assert [call[0] for call in source.done] == ["check", "accept", "check"]
        config = source.done[0][2]
        assert isinstance(config, SftpVault)
        assert (config.address, config.path) == ("backup@nas2", "/srv/x")


async def test_a_save_that_fails_says_why_and_stays() -> None:
    source = given_storage.source(refuses="config.toml cannot be written")
    async with running(source) as (app, pilot):
        await bucket(app, pilot, pages=3)
        await press(pilot, "enter")
        assert "cannot be written" in told(app)
        assert wizard(app).page == 5
        assert not wizard(app).saving


async def test_a_form_says_what_is_missing_and_which_name_is_taken() -> None:
    async with running(given_storage.source()) as (app, pilot):
        await press(pilot, "4", "a", "enter", "enter")
        assert "Fill in: name" in told(app)
        await write(pilot, "local")
        await press(pilot, "enter")
        assert app.focused is not None
        assert app.focused.id == "path"
        await write(pilot, "srv")
        await press(pilot, "enter")
        assert "configured already" in told(app)
        await press(pilot, "up", "2", "down", "enter")
        assert "Write the whole path" in told(app)


async def test_credentials_come_from_where_they_are_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_ID", "x")
    monkeypatch.setenv("BACKUP_SECRET", "y")
    async with running(given_storage.source()) as (app, pilot):
        await bucket(app, pilot)
        await press(pilot, "down", "down", "down", "down", "right", "right")
        choice = app.focused
        assert isinstance(choice, Choice)
        assert choice.value == "env"
        await press(pilot, "down")
        await write(pilot, "wJalrXUtnFEMI")
        await press(pilot, "down")
        await write(pilot, "BACKUP_SECRET")
        await press(pilot, "enter")
        assert wizard(app).page == 2
        assert "wJalr" not in told(app)
        app.screen.query_one("#access_key_env", Field).value = "BACKUP_ID"
        await press(pilot, "enter")
        assert wizard(app).page == 3
        config = wizard(app).draft.config()
        assert isinstance(config, S3Vault)
        assert (config.access_key_env, config.secret_key_env) == ("BACKUP_ID", "BACKUP_SECRET")


def draft(kind: Any, chosen: dict[str, str] | None = None, **texts: str) -> VaultDraft:
    made = VaultDraft(kind=kind, texts=texts)
    made.chosen.update(chosen or {})
    return made


def test_only_what_belongs_to_the_kind_is_saved() -> None:
    made = draft("directory", name="disk", path="/srv/x", bucket="b", region="r", price_per_gb_month="", currency="eur")
    assert made.values() == {"type": "directory", "path": "/srv/x"}
    made = draft(
        "sftp", {"offsite": "no"}, name="n", address="u@h", sftp_path="below", price_per_gb_month="0,01", currency="eur"
    )
    assert made.values() == {
        "type": "sftp",
        "address": "u@h",
        "path": "below",
        "offsite": False,
        "price_per_gb_month": 0.01,
        "currency": "EUR",
    }
    made = draft(
        "s3", {"credentials": "profile"}, name="n", bucket="b", profile="p", access_key_env="A", lock_days="30"
    )
    assert made.values() == {"type": "s3", "bucket": "b", "profile": "p", "lock_days": 30}


@pytest.mark.parametrize(
    ("kind", "texts", "page"),
    [
        ("s3", {"bucket": "a/b"}, 2),
        ("s3", {"bucket": "b", "endpoint_url": "s3.example"}, 2),
        ("s3", {"bucket": "b", "endpoint_url": "https://key:secret@s3.example"}, 2),
        ("sftp", {"address": "root:secret@host", "sftp_path": "/x"}, 2),
        ("s3", {"bucket": "b", "lock_days": "inf"}, 3),
        ("s3", {"bucket": "b", "lock_days": "0"}, 3),
        ("directory", {"path": "/x", "price_per_gb_month": "cheap"}, 3),
        ("directory", {"path": "/x", "price_per_gb_month": "-1"}, 3),
        ("directory", {"path": "/x", "price_per_gb_month": "1", "currency": "euro"}, 3),
    ],
)
def test_what_is_wrong_is_said_without_repeating_it(kind: Any, texts: dict[str, str], page: int) -> None:
    said = VaultDraft(kind=kind, texts={"name": "n", **texts}).lacks(page, ())
    assert said
    assert "secret" not in said


@drawn(st.sampled_from(["directory", "s3", "sftp"]), st.dictionaries(st.sampled_from([s.id for s in SPECS]), st.text()))
def test_any_text_is_either_refused_or_makes_settings(kind: Any, texts: dict[str, str]) -> None:
    made = VaultDraft(kind=kind, texts=texts)
    if not any(made.lacks(page, ("taken",)) for page in (2, 3)):
        assert made.config().type == kind
