#!/usr/bin/python3
"""Stands in for puma, Sidekiq and streaming: holds database and Redis connections, and answers `/health`.

Installed as `~mastodon/.rbenv/shims/bundle` and `/usr/bin/node`, and called as Mastodon's own units call those:
`bundle exec puma -C config/puma.rb`, `bundle exec sidekiq -c 25`, `node ./streaming`. Like the real ones it reads
`.env.production` in its directory, does not start without its secrets, connects again when a connection is lost, and
ends at SIGTERM; a file `tmp/stubborn` makes it ignore that.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]

REQUIRED = ("LOCAL_DOMAIN", "SECRET_KEY_BASE", "ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY")
ENV: dict[str, str] = {}


def read_settings() -> None:
    """`.env.production`, under what the unit sets."""
    for line in Path(".env.production").read_text().splitlines():
        name, separator, value = line.strip().partition("=")
        if separator and not name.startswith("#"):
            ENV[name] = value.strip("'")
    ENV.update({name: value for name, value in os.environ.items() if name in ("PORT", "DB_POOL")})
    missing = [name for name in REQUIRED if not ENV.get(name)]
    if missing:
        sys.exit(f"KeyError: {', '.join(missing)}")


class Database:
    """One connection that is made again when it was lost."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: Any = None

    def ask(self, query: str) -> Any:
        """The first value that a query gives; raises psycopg2.Error."""
        with self.lock:
            try:
                return self._ask(query)
            except psycopg2.OperationalError:
                self.connection = None
                return self._ask(query)

    def _ask(self, query: str) -> Any:
        if self.connection is None:
            self.connection = psycopg2.connect(
                host=ENV.get("DB_HOST", "localhost"),
                port=ENV.get("DB_PORT", "5432"),
                dbname=ENV.get("DB_NAME", "mastodon_production"),
                user=ENV.get("DB_USER", "mastodon"),
                password=ENV.get("DB_PASS") or None,
                application_name=sys.argv[0],
            )
            self.connection.autocommit = True
        with self.connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()[0]


class Redis:
    """One connection that is made again when it was lost."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stream: Any = None

    def call(self, *words: str) -> bytes:
        """The first line of the answer; raises OSError."""
        with self.lock:
            try:
                return self._call(words)
            except OSError:
                self.stream = None
                return self._call(words)

    def _call(self, words: tuple[str, ...]) -> bytes:
        if self.stream is None:
            address = (ENV.get("REDIS_HOST", "localhost"), int(ENV.get("REDIS_PORT", "6379")))
            self.stream = socket.create_connection(address, timeout=60).makefile("rwb")
            if ENV.get("REDIS_PASSWORD"):
                self._call(("AUTH", ENV["REDIS_PASSWORD"]))
        encoded = [word.encode() for word in words]
        parts = [b"*%d\r\n" % len(words)] + [b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded]
        self.stream.write(b"".join(parts))
        self.stream.flush()
        line: bytes = self.stream.readline()
        if not line:
            raise OSError("Redis hung up")
        if line.startswith(b"-"):
            raise OSError(line.decode())
        return line


def serve(port: int, paths: tuple[str, ...], pool: list[Database], redis: Redis) -> None:
    """Answer HTTP on loopback: 200 `OK` while the database and Redis answer, 500 and the fault otherwise."""
    server = socket.create_server(("127.0.0.1", port), backlog=50)
    while True:
        client, _ = server.accept()
        threading.Thread(target=answer, args=(client, paths, pool, redis), daemon=True).start()


def answer(client: socket.socket, paths: tuple[str, ...], pool: list[Database], redis: Redis) -> None:
    """One request."""
    with client:
        request = client.recv(4096).decode("latin-1").split(" ")
        if len(request) < 2 or request[1] not in paths:
            status, body = "404 Not Found", "Not Found"
        else:
            try:
                for database in pool:
                    database.ask("SELECT count(*) FROM (SELECT 1 FROM statuses LIMIT 1) any_status")
                redis.call("PING")
                status, body = "200 OK", "OK"
            except (psycopg2.Error, OSError) as error:
                status, body = "500 Internal Server Error", str(error)
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body.encode())}\r\n"
        client.sendall(f"{head}Connection: close\r\n\r\n{body}".encode())


def work(pool: list[Database], redis: Redis) -> None:
    """What Sidekiq does while it has nothing to do: it waits for jobs, and says that it is there."""
    me = f"{socket.gethostname()}:{os.getpid()}"
    while True:
        try:
            for database in pool:
                database.ask("SELECT 1")
            redis.call("SADD", "processes", me)
            redis.call("HSET", me, "busy", "0")
            redis.call("EXPIRE", me, "60")
            redis.call("BRPOP", "queue:nothing", "2")
        except (psycopg2.Error, OSError) as error:
            sys.stderr.write(f"{error}\n")
            time.sleep(0.5)


def main(words: list[str]) -> None:
    """Run as the program that the words name; never returns."""
    read_settings()
    stubborn = Path("tmp/stubborn").exists()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else lambda *_: os._exit(0))
    pool, redis = [Database() for _ in range(3)], Redis()
    if "sidekiq" in words:
        work(pool, redis)
    elif "puma" in words:
        pool[0].ask("SELECT max(version) FROM schema_migrations")
        serve(int(ENV.get("PORT", "3000")), ("/health",), pool, redis)
    else:
        serve(int(ENV.get("PORT", "4000")), ("/api/v1/streaming/health",), pool, redis)


if __name__ == "__main__":
    main(sys.argv[1:])
