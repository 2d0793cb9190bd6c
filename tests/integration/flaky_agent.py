"""An agent without Weft, whose health is what a file says: `python flaky_agent.py MODE_FILE`.

It answers GET /pid with its process id, and GET /held once the file holds something else. At SIGTERM it ends
with code 4.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODE = Path(sys.argv[1])


class Agent(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer as the path says."""
        if self.path == "/health":
            self._health(MODE.read_text().strip())
        elif self.path == "/held":
            before = MODE.read_text()
            while MODE.read_text() == before:
                time.sleep(0.02)
            self._answer(200, b"released")
        else:
            self._answer(200, str(os.getpid()).encode())

    def _health(self, mode: str) -> None:
        if mode == "garbage":
            self.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            self.close_connection = True
        else:
            self._answer(int(mode), b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(4))
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Agent).serve_forever()
