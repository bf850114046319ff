"""Stands in for puma, Sidekiq and streaming on a lab host: holds database and Redis connections, answers `/health`.

Like the real ones it reads `.env.production` in its directory when it starts, does not start without its secrets,
connects again when a connection is lost, and ends at SIGTERM. Faults are files in a directory of the host.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from backends.lab.programs.settings import read_settings
from backends.lab.programs.wire import Database, Redis

_POOL = {"web": 3, "streaming": 1, "sidekiq": 2}
_BEAT = 1.0
_QUEUES = ("default", "push", "ingress", "mailers", "pull", "scheduler")
_COUNTS = (
    "SELECT (SELECT count(*) FROM statuses) || ' ' || (SELECT count(*) FROM users) || ' '"
    " || (SELECT count(DISTINCT domain) FROM accounts)"
)


class Program:
    """One of the three, as the role says."""

    def __init__(self, role: str, root: str, unit: str, faults: str) -> None:
        self._role, self._unit, self._faults = role, unit, faults
        if self._fault("broken"):
            sys.exit("told not to start")
        self._settings = read_settings(root)
        self._pool = [Database(self._settings, f"{role} {unit}") for _ in range(_POOL[role])]
        self._redis = Redis(self._settings)
        self._turn = 0
        self._me = f"{self._settings['LOCAL_DOMAIN']}:{os.getpid()}"

    def run(self) -> NoReturn:
        """Serve until the process is told to end."""
        if self._role == "sidekiq":
            self._work()
        threading.Thread(target=self._use, daemon=True).start()
        self._serve(int(os.environ["PORT"]))

    def _fault(self, name: str) -> bool:
        return os.path.exists(f"{self._faults}/{self._unit}.{name}")  # noqa: PTH110

    def _use(self) -> None:
        """Use the whole pool all the time, as a server under load would: what is cut comes back at once."""
        while True:
            self._ask_all()
            time.sleep(_BEAT)

    def _ask_all(self) -> None:
        for database in self._pool:
            _attempt(lambda database=database: database.ask("SELECT 1"))  # type: ignore[misc]

    def _work(self) -> NoReturn:
        """What Sidekiq does while it has nothing to do: it looks at its queues, and says that it is there."""
        redis = Redis(self._settings)
        signal.signal(signal.SIGTERM, self._leave)
        while True:
            _attempt(lambda: redis.call("SADD", "processes", self._me))
            _attempt(lambda: redis.call("HSET", self._me, "busy", "0", "beat", str(time.time())))
            _attempt(lambda: redis.call("EXPIRE", self._me, "60"))
            for queue in _QUEUES:
                _attempt(lambda queue=queue: redis.call("LLEN", f"queue:{queue}"))  # type: ignore[misc]
            self._ask_all()
            time.sleep(_BEAT)

    def _leave(self, _number: int, _frame: FrameType | None) -> None:
        """Sidekiq takes itself off the list when it ends."""
        last = Redis(self._settings)
        _attempt(lambda: last.call("SREM", "processes", self._me))
        _attempt(lambda: last.call("DEL", self._me))
        os._exit(0)

    def _serve(self, port: int) -> NoReturn:
        server = socket.create_server(("127.0.0.1", port), backlog=50)
        while True:
            client, _ = server.accept()
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client:
            client.settimeout(10)
            try:
                words = client.recv(8192).decode("latin-1").split(" ", 2)
            except OSError:
                return
            path = words[1].partition("?")[0] if len(words) > 1 else ""
            status, kind, body = self._page(path)
            head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {len(body.encode())}"
            _attempt(lambda: client.sendall(f"{head}\r\nConnection: close\r\n\r\n{body}".encode()))

    def _page(self, path: str) -> tuple[str, str, str]:
        pages = {
            "/health": self._health,
            "/": self._front,
            "/api/v1/instance": self._instance_1,
            "/api/v2/instance": self._instance_2,
        }
        if self._role == "streaming":
            pages = {"/api/v1/streaming/health": self._health}
        if path not in pages:
            return "404 Not Found", "text/plain", "Not Found\n"
        try:
            return pages[path]()
        except OSError as error:
            return "500 Internal Server Error", "text/plain", f"{error}\n"

    def _health(self) -> tuple[str, str, str]:
        if self._fault("unwell"):
            return "503 Service Unavailable", "text/plain", "unwell\n"
        self._ask("SELECT 1")
        self._redis.call("PING")
        return "200 OK", "text/plain", "OK"

    def _counts(self) -> tuple[int, int, int]:
        statuses, users, domains = self._ask(_COUNTS).split()
        return int(statuses), int(users), int(domains)

    def _front(self) -> tuple[str, str, str]:
        statuses, users, domains = self._counts()
        text = f"{statuses} posts of {users} people here and of {domains} other servers"
        domain = self._settings["LOCAL_DOMAIN"]
        return "200 OK", "text/html", f"<!doctype html><title>{domain}</title><h1>{domain}</h1><p>{text}</p>\n"

    def _instance_1(self) -> tuple[str, str, str]:
        statuses, users, domains = self._counts()
        stats = {"user_count": users, "status_count": statuses, "domain_count": domains}
        return "200 OK", "application/json", json.dumps({"uri": self._settings["LOCAL_DOMAIN"], "stats": stats})

    def _instance_2(self) -> tuple[str, str, str]:
        users = self._counts()[1]
        body = {"domain": self._settings["LOCAL_DOMAIN"], "usage": {"users": {"active_month": users}}}
        return "200 OK", "application/json", json.dumps(body)

    def _ask(self, query: str) -> str:
        self._turn += 1
        return self._pool[self._turn % len(self._pool)].ask(query)


def _attempt(work: Callable[[], object]) -> None:
    """Do it; what a server refuses is said in the log, and tried again the next time."""
    try:
        work()
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()


def main(role: str, root: str, unit: str, faults: str) -> NoReturn:
    """Run as `web`, `sidekiq` or `streaming`."""
    Program(role, root, unit, faults).run()
