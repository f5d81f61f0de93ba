"""A local HTTP server that serves a folder and misbehaves on demand."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server:
    """Serves the files of ``root``; ``faults[path]`` is a list of faults, one used up by each request.

    Faults: a status code; ``"cut"`` ends the connection in the middle; ``"cut-always"`` likewise, for ever;
    ``"no-ranges"`` ignores ranges; ``"html"`` answers with a page; ``"wrong-range"`` sends from the beginning as 206;
    ``"hold"`` sends half and the rest when ``released`` is set; ``"reset"`` closes the connection without an answer.
    ``"long"`` announces ten bytes more than it has, and never has them; ``"short"`` ten fewer; ``"wrong-total"``
    answers a range as one of a file that is ten bytes longer; ``"endless"`` sends zeros for ever, without a length;
    ``("wait", text)`` answers 503 with this Retry-After. With ``-always`` added a fault is never used up.
    ``sent`` counts the bytes of all files. ``busy`` is set when an answer is being held.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.faults: dict[str, list] = defaultdict(list)
        self.requests: list[tuple[str, str | None]] = []
        self.version = "v1"
        self.sent = 0
        self.busy, self.released = threading.Event(), threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):  # clients that are killed
                    outer.answer(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self.http.shutdown()
        self.http.server_close()

    def _next_fault(self, path: str) -> object:
        faults = self.faults[path]
        if faults and str(faults[0]).endswith("-always"):
            return faults[0].removesuffix("-always")
        return faults.pop(0) if faults else None

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.lstrip("/")
        asked = handler.headers.get("Range")
        self.requests.append((path, asked))
        fault = self._next_fault(path)
        if isinstance(fault, int):
            return self._send(handler, fault, b"no", {})
        if fault == "reset":
            handler.close_connection = True
            return None
        if isinstance(fault, tuple):
            return self._send(handler, 503, b"later", {"Retry-After": fault[1]})
        if fault == "endless":
            return self._send_for_ever(handler)
        if fault == "html":
            return self._send(handler, 200, b"<html>log in</html>", {"Content-Type": "text/html; charset=utf-8"})
        file = self.root / path
        if not file.is_file():
            return self._send(handler, 404, b"no such file", {})
        content, status = file.read_bytes(), 200
        headers = {"ETag": f'"{self.version}"', "Content-Type": "application/octet-stream"}
        current = handler.headers.get("If-Range") in (None, headers["ETag"])
        if asked and current and fault != "no-ranges":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self._send(handler, 416, b"", {})
            if fault == "wrong-range":
                start = 0
            total = len(content) + 10 * (fault == "wrong-total")
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{total}"
            content, status = content[start:], 206
        if fault in ("long", "short"):
            headers["Content-Length"] = str(len(content) + (10 if fault == "long" else -10))
        return self._send(handler, status, content, headers, fault)

    def _send(self, handler, status: int, content: bytes, headers: dict[str, str], fault: object = None) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        half = len(content) // 2
        handler.wfile.write(content[:half])
        self.sent += half
        if fault in ("cut", "long"):
            handler.close_connection = True
        if fault == "cut":
            return
        if fault == "hold":
            handler.wfile.flush()
            self.busy.set()
            self.released.wait(30)
        handler.wfile.write(content[half:])
        self.sent += len(content) - half

    def _send_for_ever(self, handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        while True:
            handler.wfile.write(bytes(1 << 16))
            self.sent += 1 << 16
