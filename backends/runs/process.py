"""The process of a run: `python -m backends.runs.process FOLDER`, started by `launch`, in a session of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.config.paths import Paths
from backends.errors import MastovaultError
from backends.model import Asset, JobResult, JobState, Secret
from backends.runs.control_server import ControlServer
from backends.runs.events import EventWriter, summary_event
from backends.runs.folder import Request, process_start, read_request, write_request
from backends.runs.job import Publisher, RunJob
from backends.runs.questions import Questions


def main(folder: Path) -> int:
    """Carry out the request of a run folder; returns 0 when every job is done or was skipped."""
    # The terminal that began this run may close; it goes on.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o077)
    request = read_request(folder)
    if request is None:
        print(f"{folder} holds no request", file=sys.stderr)  # noqa: T201 - the run's own output.log
        return 2
    request = replace(request, pid=os.getpid(), started=process_start(os.getpid()))
    write_request(folder, request)
    return _Run(folder, request).carry_out()


class _Run:
    """One run at work: its jobs, its socket, its events."""

    def __init__(self, folder: Path, request: Request) -> None:
        self._request = request
        self._events = EventWriter(folder)
        self._questions = Questions(self._events, interactive=bool(request.options.get("interactive", True)))
        self._jobs = {asset: RunJob(request.host, asset, self._events, self._ask) for asset in request.assets}
        self._results: dict[Asset, JobResult] = {}
        self._stopping = threading.Event()

    def carry_out(self) -> int:
        """Do the work; a summary is written whatever happens."""
        for number in (signal.SIGTERM, signal.SIGINT):
            # Handlers run between any two lines of the main thread: the cancel itself happens on a thread of its own.
            signal.signal(number, lambda _number, _frame: threading.Thread(target=self._cancel, args=(None,)).start())
        publisher = Publisher(list(self._jobs.values()))
        server = ControlServer(Path(self._request.control), self._told)
        try:
            with contextlib.suppress(OSError):
                server.start()
            publisher.start()
            self._work()
        except MastovaultError as error:
            self._fail(error.sentence, error.next_step, error.exit_code)
        except BaseException as error:
            self._fail(f"an internal error ended the run ({type(error).__name__})", "See its output.log.", 1)
            raise
        finally:
            publisher.stop()
            self._events.write(summary_event(self._results[asset] for asset in Asset if asset in self._results))
            server.stop()
            self._events.close()
        good = {JobState.DONE, JobState.SKIPPED}
        return 0 if all(result.state in good for result in self._results.values()) else 1

    def _work(self) -> None:
        for job in self._jobs.values():
            job.publish()
        from backends.config.load import load
        from backends.operations.backup import back_up_host
        from backends.runs.recover import recover

        paths = Paths.find()
        config = load(paths.config_file)
        recover(paths, config)
        back_up_host(
            config,
            paths,
            self._request.host,
            self._request.assets,
            self._jobs,
            self._request.id,
            on_result=self._ended,
        )

    def _ended(self, result: JobResult) -> None:
        self._results[result.asset] = result
        self._jobs[result.asset].finish(result)

    def _fail(self, sentence: str, next_step: str, code: int) -> None:
        for asset in self._jobs:
            if asset not in self._results:
                self._ended(
                    JobResult(
                        host=self._request.host,
                        asset=asset,
                        state=JobState.FAILED,
                        error=sentence,
                        next_step=next_step or None,
                        exit_code=code,
                    )
                )

    def _ask(self, job: str, prompt: str) -> Secret | None:
        return self._questions.ask(job, prompt, self._stopping.is_set)

    def _told(self, message: Mapping[str, Any]) -> None:
        if message["do"] == "cancel":
            self._cancel(message["job"])
        elif message["do"] == "answer":
            self._questions.answer(message)
        else:
            raise ValueError("unknown")

    def _cancel(self, job: str | None) -> None:
        if job is None:
            self._stopping.set()
        elif job not in {known.id for known in self._jobs.values()}:
            raise MastovaultError("there is no such job in this run")
        for known in self._jobs.values():
            if job in (None, known.id):
                known.cancel()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
