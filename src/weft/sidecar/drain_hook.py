"""`python -m weft.sidecar.drain_hook SOCKET`: have a sidecar drain, and wait until it has.

What a pod's preStop hook runs. It ends with 0 once the sidecar has drained, with 1 if it could not be asked.
How long it waits is for the sidecar, and for whoever runs the hook.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

_ASK = b"POST /drain HTTP/1.1\r\nHost: sidecar\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_CHUNK = 4096
_MAX_ANSWER = 64 * 1024


def main(arguments: Sequence[str]) -> int:
    """Ask the sidecar whose drain socket is named; return the exit code."""
    if len(arguments) != 1:
        print("usage: python -m weft.sidecar.drain_hook SOCKET", file=sys.stderr)
        return 2
    try:
        answer = _asked(arguments[0])
    except OSError as error:
        print(f"the sidecar cannot be asked at {arguments[0]}: {error}", file=sys.stderr)
        return 1
    status = answer.split(b" ", 2)[1:2]
    if status == [b"204"]:
        return 0
    print("the sidecar ended, or refused, before it had drained", file=sys.stderr)
    return 1


def _asked(path: str) -> bytes:
    answer = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        connection.sendall(_ASK)
        while (part := connection.recv(_CHUNK)) and len(answer) < _MAX_ANSWER:
            answer += part
    return answer


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
