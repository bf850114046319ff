"""The process of a run: `python -m backends.runs.process FOLDER`, started by `launch`, in a session of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.config.paths import Paths
from backends.errors import Cancelled, MastovaultError
from backends.model import Asset, JobResult, JobState, Secret
from backends.operations.mishap import internal
from backends.runs.control_server import ControlServer
from backends.runs.events import EventWriter, summary_event
from backends.runs.folder import SETTLED, Request, process_start, read_request, write_request
from backends.runs.job import Publisher, RunJob
from backends.runs.kinds import kind_of
from backends.runs.memory import few_arenas
from backends.runs.questions import Questions
from backends.runs.slots import allowed, turn


def main(folder: Path) -> int:
    """Carry out the request of a run folder; returns 0 when every job is done or was skipped."""
    # The terminal that began this run may close; it goes on.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o077)
    few_arenas()
    threading.excepthook = _thread_failed
    request = read_request(folder)
    if request is None:
        _say(f"{folder} holds no request")
        return 2
    request = replace(request, pid=os.getpid(), started=process_start(os.getpid()))
    write_request(folder, request)
    return _Run(folder, request).carry_out()


class _Run:
    """One run at work: its jobs, its socket, its events."""

    def __init__(self, folder: Path, request: Request) -> None:
        self._folder, self._request = folder, request
        self._events = EventWriter(folder)
        self._questions = Questions(self._events, interactive=bool(request.options.get("interactive", True)))
        self._jobs = {asset: RunJob(request.host, asset, self._events, self._ask) for asset in request.assets}
        self._results: dict[Asset, JobResult] = {}

    def carry_out(self) -> int:
        """Do the work; a summary is written whatever happens."""
        for number in (signal.SIGTERM, signal.SIGINT):
            # Handlers run between any two lines of the main thread: the cancel itself happens on a thread of its own.
            signal.signal(number, lambda _number, _frame: threading.Thread(target=self._cancel, args=(None,)).start())
        publisher = Publisher(list(self._jobs.values()))
        publisher.start()
        server = ControlServer(Path(self._request.control), self._told)
        try:
            self._listen(server)
            self._work()
        except MastovaultError as error:
            self._fail(error)
        except BaseException as error:  # noqa: BLE001 - whatever it was, the run says how it ended
            self._fail(internal(error, "the run"))
        finally:
            publisher.stop()
            self._events.write(summary_event(self._results[asset] for asset in Asset if asset in self._results))
            server.stop()
            self._events.close()
            (self._folder / SETTLED).touch()
        good = {JobState.DONE, JobState.SKIPPED}
        return 0 if all(result.state in good for result in self._results.values()) else 1

    def _listen(self, server: ControlServer) -> None:
        try:
            server.start()
        except OSError as error:
            _say(f"no control socket: {error.strerror}; SIGTERM still cancels this run")

    def _work(self) -> None:
        for job in self._jobs.values():
            job.publish(now=True)
        kind = kind_of(self._request)
        paths = Paths.find()
        if kind.light:
            kind.carry_out(paths, self._request, self._jobs, self._ended)
            return
        with turn(paths.state_dir, allowed(paths.config_file), self._all_cancelled, self._waits):
            if self._all_cancelled():
                raise Cancelled
            kind.carry_out(paths, self._request, self._jobs, self._ended)

    def _waits(self) -> None:
        for job in self._jobs.values():
            job.log("waiting until another run has ended (limits.runs)")

    def _all_cancelled(self) -> bool:
        return all(job.cancelled for job in self._jobs.values())

    def _ended(self, result: JobResult) -> None:
        self._results[result.asset] = result
        self._jobs[result.asset].finish(result)

    def _fail(self, error: MastovaultError) -> None:
        for asset in self._jobs:
            if asset not in self._results:
                self._ended(
                    JobResult(
                        host=self._request.host,
                        asset=asset,
                        state=JobState.CANCELLED if isinstance(error, Cancelled) else JobState.FAILED,
                        error=error.sentence,
                        next_step=error.next_step or None,
                        exit_code=error.exit_code,
                    )
                )

    def _ask(self, job: str, prompt: str, cancelled: Callable[[], bool]) -> Secret | None:
        return self._questions.ask(job, prompt, cancelled)

    def _told(self, message: Mapping[str, Any]) -> None:
        if message["do"] == "cancel":
            self._cancel(message["job"])
        elif message["do"] == "answer":
            self._questions.answer(message)
        else:
            raise ValueError("unknown")

    def _cancel(self, job: str | None) -> None:
        if job is not None and job not in {known.id for known in self._jobs.values()}:
            raise MastovaultError("there is no such job in this run")
        for known in self._jobs.values():
            if job in (None, known.id):
                known.cancel()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the run's own output.log


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None:
        internal(failed.exc_value, "a thread")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
