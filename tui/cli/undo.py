"""`mastovault undo`: what was restored, and the way back."""

from __future__ import annotations

import sys

import click

from backends.config.load import load
from backends.config.paths import Paths
from backends.errors import ConfigurationError, MastovaultError
from backends.model import rfc3339, utc_now
from backends.operations.restores import RestoreRecord, named, restores
from tui.cli import show
from tui.cli.ask import ask
from tui.cli.follow import Follower, Order
from tui.cli.read_only import require_change


@click.command("undo")
@click.argument("restore", metavar="[ID]", required=False)
@click.option("--confirm", metavar="NAME", help="The name that the restore was confirmed with: HOST/ASSET, or HOST.")
@click.option("--forget", is_flag=True, help="Give up the way back: remove what the restore kept aside.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output and nothing else.")
@click.pass_obj
def command(paths: Paths, restore: str | None, confirm: str | None, forget: bool, as_json: bool) -> int:
    """Bring back what was there before a restore. Without ID, lists the restores and what can be done about each."""
    if not restore:
        _list(paths, as_json=as_json)
        return 0
    require_change("an undo")
    record = named(paths, restore)
    what = "forget" if forget else "undo"
    if what not in record.can:
        raise ConfigurationError(
            f"the restore {record.id} is {record.sentence}", f"What can be done about it: {_can(record) or 'nothing'}."
        )
    interactive = sys.stdin.isatty() and not as_json
    if confirm is None and interactive:
        confirm = _look_and_ask(paths, record, what)
    if confirm != record.confirm:
        raise ConfigurationError(
            f"this must be confirmed by typing {record.confirm}; nothing was changed",
            f"Give --confirm {record.confirm}.",
        )
    follower = Follower(paths, as_json=as_json, interactive=sys.stdin.isatty())
    return go_on(paths, follower, record.id, what)


def go_on(paths: Paths, follower: Follower, restore: str, what: str) -> int:
    """Start the run that does it, and follow it."""
    record = named(paths, restore)
    options = {"restore": record.id, "what": what}
    return follower.carry_out({record.host: Order("undo", record.assets, options)})


def _look_and_ask(paths: Paths, record: RestoreRecord, what: str) -> str:
    if what == "undo":
        from backends.operations.undo import undo_words

        try:
            words = undo_words(load(paths.config_file), paths, record.id, ask)
        except MastovaultError as error:
            words = (f"What was written since the restore is not known: {error.sentence}",)
        for line in words:
            click.echo(line)
    else:
        click.echo("What was there before the restore is removed for good.")
    typed: str = click.prompt(f"Type {record.confirm} to go on (anything else leaves all as it is)", default="")
    return typed


def _list(paths: Paths, *, as_json: bool) -> None:
    known = restores(paths)
    if as_json:
        show.document({"restores": [_json(record) for record in known]})
        return
    if not known:
        click.echo("Nothing was restored from this machine yet.")
        return
    now = utc_now()
    show.rows(
        ("RESTORE", "AGE", "TARGET", "ASSETS", "CAN", "STATE"),
        (
            (
                record.id,
                show.age(record.at, now),
                record.host,
                ",".join(record.assets),
                _can(record) or "–",
                record.sentence,
            )
            for record in known
        ),
    )


def _can(record: RestoreRecord) -> str:
    words = {
        "undo": "undo ID",
        "forget": "undo ID --forget",
        "resume": "restore --resume ID",
        "rollback": "restore --roll-back ID",
    }
    return ", ".join(words[what] for what in record.can)


def _json(record: RestoreRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "host": record.host,
        "assets": [asset.value for asset in record.assets],
        "snapshots": {asset.value: snapshot for asset, snapshot in record.snapshots.items()},
        "at": rfc3339(record.at),
        "state": record.state,
        "can": list(record.can),
        "sentence": record.sentence,
        "confirm": record.confirm,
    }
