"""A proxy before an S3 server that makes bad days: errors, cut answers, cut requests, lost answers."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>{}</Message>{}</Error>'
_HOP = frozenset({"connection", "content-length", "transfer-encoding", "date", "server"})


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(slots=True)
class Fault:
    """What happens to the next `times` requests that match, after `skip` that are let through."""

    method: str = ""
    has: str = ""
    """A part of the path or the query."""
    when: Callable[[Asked], bool] = lambda asked: True
    times: int = 1_000_000
    skip: int = 0
    status: int = 0
    code: str = "Whatever"
    message: str = ""
    more: str = ""
    """More elements of the error document."""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_answer: int | None = None
    """Bytes of the body after which the connection is closed."""
    lose_request: bool = False
    """Close the connection without passing the request on."""
    lose_answer: bool = False
    """Pass the request on, and close the connection instead of answering."""


class _Quiet(ThreadingHTTPServer):
    """Says nothing of connections that a client breaks."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class FaultyS3:
    """Listens at `endpoint_url` and passes on what no fault is for."""

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None) -> None:
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self._upstream = urlsplit(upstream)
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # headers and body are two writes: the second would wait for 40 ms

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named so there
                pass

            def handle_any(self) -> None:
                proxy.handle(self)

        for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
            setattr(Handler, f"do_{method}", Handler.handle_any)
        self._server = _Quiet(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.endpoint_url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(self, fault: Fault) -> Fault:
        """Let something go wrong from here on."""
        with self._lock:
            self.faults.append(fault)
        return fault

    def count(self, method: str, has: str = "") -> int:
        """How many such requests came."""
        return sum(asked.method == method and has in asked.path for asked in self.asked)

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        asked = Asked(handler.command, handler.path, dict(handler.headers.items()), body)
        with self._lock:
            self.asked.append(asked)
            fault = self._fault(asked)
        if fault is not None and fault.lose_request:
            handler.close_connection = True
            return
        if fault is not None and fault.status:
            document = _ERROR.format(fault.code, fault.message, fault.more).encode()
            headers = {"Content-Type": "application/xml", "Connection": "close", **fault.headers}
            _answer(handler, fault.status, headers, document)
            handler.close_connection = True
            return
        status, headers, data = self._pass_on(asked)
        if fault is not None and fault.lose_answer:
            handler.close_connection = True
            return
        _answer(handler, status, headers, data, fault.cut_answer if fault is not None else None)

    def _fault(self, asked: Asked) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method in {"", asked.method} and fault.has in asked.path and fault.when(asked):
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def _pass_on(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self._upstream.netloc, timeout=30)
        try:
            connection.putrequest(asked.method, asked.path, skip_host=True, skip_accept_encoding=True)
            for name, value in asked.headers.items():
                connection.putheader(name, value)
            connection.endheaders(asked.body)
            answer = connection.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            length = answer.getheader("Content-Length")
            if asked.method == "HEAD" and length:
                headers["Content-Length"] = length
            return answer.status, headers, answer.read()
        finally:
            connection.close()


def _answer(
    handler: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], data: bytes, cut: int | None = None
) -> None:
    handler.send_response_only(status)
    handler.send_header("Date", headers.get("Date", handler.date_time_string()))
    for name, value in headers.items():
        if name != "Date":
            handler.send_header(name, value)
    if "Content-Length" not in headers:
        handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(data if cut is None else data[:cut])
    if cut is not None:
        handler.close_connection = True
