"""A worker without Weft's library, or any other: what its sidecar posts to it are tasks and events.

weft run --type painter --consume thumbnails --subscribe uploads -- python examples/foreign-worker/painter.py
"""

from __future__ import annotations

import json
import os
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

MAX_BODY_BYTES = 1024 * 1024


class Painter(BaseHTTPRequestHandler):
    """Paints thumbnails."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say that we are well."""
        self.answer(200, {"status": "healthy"})

    def do_POST(self) -> None:
        """Take a task or an event."""
        length = int(self.headers.get("Content-Length", 0))
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            self.answer(413, {"detail": "not too much at once"})
            return
        try:
            content = json.loads(self.rfile.read(length))
            file = content["file"]
        except (ValueError, KeyError, TypeError):
            self.answer(400, {"detail": 'send {"file": "..."}'})  # 4xx: not tried again
            return
        if self.path == "/events":
            # The event's attributes are headers: ce-id, ce-type, ce-source.
            print(f"{self.headers['x-weft-topic']}: {file} of {self.headers['ce-source']}", flush=True)
            self.answer(204)
        elif content.get("slowly"):
            self.answer(202)  # it goes on, and tells how it went at the lease
            threading.Thread(target=paint_slowly, args=(file, self.headers["x-weft-lease"])).start()
        else:
            self.answer(200, {"thumbnail": f"small-{file}"})

    def answer(self, status: int, content: dict[str, Any] | None = None) -> None:
        """Send `content` as JSON."""
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        if content is not None:
            self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def paint_slowly(file: str, lease: str) -> None:
    """Paint in the background: at the lease, say how far it is, and in the end what came of it."""
    if tell(lease, "progress", {"fraction": 0.5, "message": "half of it"}) != 410:
        tell(lease, "complete", {"thumbnail": f"fine-{file}"})


def tell(lease: str, what: str, content: dict[str, Any]) -> int:
    """Post `content` to the lease. The answer 410 says that the task is ours no more."""
    place = urlsplit(lease)
    connection = HTTPConnection(place.netloc, timeout=10)
    body, headers = json.dumps(content), {"Content-Type": "application/json"}
    connection.request("POST", f"{place.path}/{what}", body, headers)
    with connection.getresponse() as response:
        return response.status


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Painter)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
