"""A small HTTP server on 127.0.0.1 that fails in the usual ways, as often as a test needs."""

import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ETAG = '"one"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        state = self.server
        state.requests.append((self.path, dict(self.headers)))
        content = state.files.get(self.path)
        tricks = state.tricks[self.path]
        trick = tricks.pop(0) if tricks else "fine"
        if isinstance(trick, int):
            return self._answer(trick, b"trouble", {"Retry-After": state.retry_after} if state.retry_after else {})
        if trick == "silence":
            state.closing.wait(20)
            return self._drop()
        if trick == "hang up":
            return self._drop()
        if trick.startswith("redirect "):
            return self._answer(302, b"", {"Location": trick.removeprefix("redirect ")})
        if trick == "page":
            return self._answer(200, b"<html>not today</html>", {})
        if content is None:
            return self._answer(404, b"no such file", {})
        start = 0
        wanted = self.headers.get("Range")
        if wanted and state.ranges and self.headers.get("If-Range") in (state.etag, *state.believed):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self._answer(416, b"", {})
        headers = state.headers | ({"ETag": state.etag} if state.etag else {})
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if trick == "cut short":
            return self._answer(206 if start else 200, body[: len(body) // 2], headers, len(body))
        if trick == "chunked":
            return self._answer(200, content, headers | {"Transfer-Encoding": "chunked"}, None)
        return self._answer(206 if start else 200, body, headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str], length: int | None = -1) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length == -1 else length))
        self.end_headers()
        if length is None:
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        self.wfile.write(body)
        if length not in (None, -1):
            self._drop()

    def _drop(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def failing_server(files: dict[str, bytes]) -> Iterator[Any]:
    """Yield a server of ``files``; ``tricks[path]`` lists its next answers, ``requests`` the requests so far."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.files, server.tricks, server.requests = files, defaultdict(list), []
    server.etag, server.ranges, server.retry_after, server.headers = ETAG, True, None, {}
    # Other validators for which it sends a part all the same, as a server does that does not know If-Range.
    server.believed = ()
    server.closing = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
