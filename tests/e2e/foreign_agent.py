"""An agent that knows nothing of Weft: `python foreign_agent.py STATE_DIRECTORY`.

It answers every request with what it saw of it, as JSON, and besides as the path says:

| path | answer |
|---|---|
| /status/N | with that status |
| /slow/SECONDS | after so long |
| /held | once the file `release` is in the directory |
| /drip/COUNT/SECONDS | a stream of so many events, so far apart |
| /health | the status in the file `health` if there is one, or garbage if it says so |

If there is a file `always`, its text is the status of all other answers, or "refused". If there is a file
`slow`, they take as many seconds as it says. Every request but those for its health is a line in the file
`seen`: method and path.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

DIRECTORY = Path(sys.argv[1])
DIRECTORY.mkdir(exist_ok=True)


def _setting(name: str, default: str) -> str:
    try:
        return (DIRECTORY / name).read_text()
    except FileNotFoundError:
        return default


class Agent(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer."""
        if self.path == "/health":
            self._health()
            return
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        time.sleep(float(_setting("slow", "0")))
        if mode := _setting("always", ""):
            self._always(mode)
        else:
            self._by_path(body)

    do_POST = do_PUT = do_GET  # noqa: N815

    def _by_path(self, body: bytes) -> None:
        match self.path.split("?")[0].strip("/").split("/"):
            case ["status", number]:
                self._seen(int(number), body)
            case ["slow", seconds]:
                time.sleep(float(seconds))
                self._seen(200, body)
            case ["held"]:
                self._note()
                while not (DIRECTORY / "release").exists():
                    time.sleep(0.02)
                self._send(200, b"{}")
            case ["drip", count, seconds]:
                self._drip(int(count), float(seconds))
            case _:
                self._seen(200, body)

    def _health(self) -> None:
        mode = _setting("health", "200")
        if mode == "garbage":
            self.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            self.close_connection = True
        else:
            self._send(int(mode), b"")

    def _always(self, mode: str) -> None:
        if mode == "refused":
            self._send(503, b"{}", {"X-Weft-Refused": "busy"})
        else:
            self._send(int(mode), b"{}")

    def _seen(self, status: int, body: bytes) -> None:
        self._note()
        seen = {
            "instance": os.environ["WEFT_INSTANCE"],
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "size": len(body),
        }
        self._send(status, json.dumps(seen).encode())

    def _note(self) -> None:
        with (DIRECTORY / "seen").open("a") as file:
            file.write(f"{self.command} {self.path}\n")

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Internal", "secret")
        self.end_headers()
        self.wfile.write(body)

    def _drip(self, count: int, seconds: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for number in range(count):
            self.wfile.write(f"data: {number}\n\n".encode())
            self.wfile.flush()
            time.sleep(seconds)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Agent).serve_forever()
