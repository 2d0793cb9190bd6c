"""An agent without Weft, in a pod: `python pod_agent.py DIRECTORY`. It listens on loopback only.

It answers GET /held once the file `release` is there; `held` says that it has been asked. At SIGTERM it calls
the mesh once more, by the environment alone, writes what came of that to `farewell`, and ends with code 0.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DIRECTORY = Path(sys.argv[1])


class Agent(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the instance's name."""
        if self.path == "/held":
            (DIRECTORY / "held").touch()
            while not (DIRECTORY / "release").exists():
                time.sleep(0.02)
        body = os.environ["WEFT_INSTANCE"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def leave(*_: object) -> None:
    """Use the way out once more, as a program does that finishes its work."""
    identity = Path(os.environ["WEFT_IDENTITY_DIR"], "svid.pem").read_text()
    with urllib.request.urlopen(f"{os.environ['WEFT_CONTROL']}/v1/agents") as answer:
        said = f"{answer.status} {'PRIVATE KEY' in identity}"
    (DIRECTORY / "farewell").write_text(said)
    os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Agent).serve_forever()
