"""A program that knows nothing of the mesh, and does tasks and takes events as HTTP requests."""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Gives back what a task is given, in capitals; says which events came."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say how we are."""
        self._answer(b"{}")

    def do_POST(self) -> None:
        """Do a task, or take an event."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/events":
            print(f"event {json.loads(body)['topic']}", flush=True)
        self._answer(body.upper())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
