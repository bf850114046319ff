"""The root command: loads a command's module only when it is called, and turns every error into one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path

import click

from backends.config.paths import Paths
from backends.errors import MastovaultError
from tui.cli.read_only import KEY as READ_ONLY

COMMANDS = {
    "status": "Ages, risk and reasons of every asset.",
    "backup": "Back up assets now.",
    "list": "Snapshots and restore points.",
    "restore": "Plan a restore and carry it out; the live data is kept.",
    "undo": "What was restored, and the way back.",
    "verify": "Read what is stored, whole or by sample, and decode it.",
    "drill": "Restore into a throwaway place and check it: the proof.",
    "prune": "Remove what the retention no longer keeps.",
    "host": "Add, probe, list or forget hosts.",
    "vault": "Add, check, list, sync or forget vaults.",
    "key": "Make, show or check the encryption keys.",
    "config": "Check, show or locate the configuration.",
    "runs": "Runs going on and gone by; follow one.",
    "cancel": "Cancel a run.",
    "demo": "An embedded fleet with real servers, and the app on it.",
}
_PLACES = {"cancel": ("runs", "cancel_command")}


class Commands(click.Group):
    """The commands by name; listing them imports none of them, so that help and status start fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order a new user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command's module."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = _PLACES.get(cmd_name, (cmd_name, "command"))
        found: click.Command = getattr(import_module(f"tui.cli.{module}"), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file; wins over MASTOVAULT_CONFIG.")
@click.option("--read-only", is_flag=True, help="No action that changes something, in the app or a command.")
@click.option("--ascii", "ascii_glyphs", is_flag=True, help="Plain ASCII signs in the app.")
@click.version_option(metadata.version("mastovault"), prog_name="mastovault")
@click.pass_context
def root(context: click.Context, config: Path | None, read_only: bool, ascii_glyphs: bool) -> None:
    """Backups and restores of Mastodon servers. Without a command, opens the terminal app."""
    context.obj = Paths.find(config)
    context.meta[READ_ONLY] = read_only
    if context.invoked_subcommand is None:
        open_app(context.obj, read_only=read_only, ascii_glyphs=ascii_glyphs)


def open_app(paths: Paths, *, read_only: bool = False, ascii_glyphs: bool = False) -> None:
    """Open the terminal app; says what to use instead where there is no usable terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise MastovaultError(
            "the app needs a terminal and there is none", "Use `mastovault status` or another command; see --help."
        )
    if os.environ.get("TERM", "dumb") in {"dumb", ""}:
        raise MastovaultError(
            "this terminal (TERM=dumb) cannot show the app", "Use `mastovault status` or another command; see --help."
        )
    from backends.config.load import load

    load(paths.config_file)
    from tui.app import MastovaultApp

    app = MastovaultApp(paths, read_only=read_only, ascii_glyphs=ascii_glyphs)
    message = app.run()
    if message:
        click.echo(message)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return the exit code (docs/commands.md)."""
    try:
        code = root.main(args=list(arguments), prog_name="mastovault", standalone_mode=False)
    except MastovaultError as error:
        _say(error.sentence, error.next_step)
        return error.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted", "")
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is left to say, nor anywhere to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("MASTOVAULT_DEBUG"):
            raise
        _say(
            f"an internal error ended the command ({type(error).__name__})",
            "Please report it; MASTOVAULT_DEBUG=1 shows where it happened.",
        )
        return 1
    return code if isinstance(code, int) else 0


def _say(sentence: str, next_step: str) -> None:
    click.echo(f"mastovault: {sentence}", err=True)
    if next_step:
        click.echo(f"  {next_step}", err=True)
