"""An agent without Weft's library: any HTTP server that takes `POST /rpc` and answers `GET /health` is one.

weft run --type counter --capability count -- python examples/foreign_agent.py
"""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MAX_BODY_BYTES = 1024 * 1024


class CounterHandler(BaseHTTPRequestHandler):
    """Counts the words of a text."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say how we are."""
        self.answer(200 if self.path == "/health" else 404, {"status": "healthy"})

    def do_POST(self) -> None:
        """Handle `{"kind": "count", "payload": {"text": ...}}`."""
        length = int(self.headers.get("Content-Length", 0))
        if self.path != "/rpc" or length > MAX_BODY_BYTES:
            self.close_connection = True
            self.answer(404, {"detail": "POST /rpc, and not too much at once"})
            return
        try:
            request = json.loads(self.rfile.read(length))
            words = request["payload"]["text"].split()
        except (ValueError, KeyError, TypeError, AttributeError):
            self.answer(400, {"detail": 'send {"kind": "count", "payload": {"text": "..."}}'})
            return
        self.answer(200, {"result": len(words)})

    def answer(self, status: int, content: dict[str, Any]) -> None:
        """Send `content` as JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), CounterHandler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
