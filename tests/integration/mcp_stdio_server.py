"""An MCP server of 2025-11-25 on its standard streams, without any library, that can misbehave.

Its tools: `echo`; `pid` (its process id); `garbage`, before whose answer it prints what is no message;
`more`, which gives it one tool more; `wait`, which ends when it is cancelled; `endless`, a line that does not
end; `exit`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

NAMES = ["echo", "pid", "garbage", "more", "wait", "endless", "exit"]
VERSION = "2025-11-25"


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def call(name: str, arguments: dict[str, Any]) -> str:
    match name:
        case "pid":
            return str(os.getpid())
        case "garbage":
            sys.stdout.write("INFO all is well\n\n{}\n[1\n\xff\n")
        case "more":
            NAMES.append("another")
            send({"method": "notifications/tools/list_changed"})
        case "endless":
            while True:
                sys.stdout.write("x" * 1_000_000)
        case "exit":
            sys.exit(int(arguments["text"]))
    return str(arguments.get("text", ""))


def result(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    match method:
        case "initialize":
            info = {"name": "plain", "version": "1"}
            return {"protocolVersion": VERSION, "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            return {"tools": [{"name": each, "inputSchema": {"type": "object"}} for each in NAMES]}
        case "tools/call":
            text = call(params["name"], params.get("arguments") or {})
            return {"content": [{"type": "text", "text": text}]}
    return None


def main() -> None:
    print("it begins", file=sys.stderr, flush=True)
    waiting: dict[Any, Any] = {}
    for line in sys.stdin:
        message = json.loads(line)
        method, params = message["method"], message.get("params") or {}
        if method == "notifications/cancelled":
            print(f"cancelled: {waiting.pop(params['requestId'])}", file=sys.stderr, flush=True)
        elif method == "tools/call" and params["name"] == "wait":
            waiting[message["id"]] = params["arguments"]["text"]
            print("it waits", file=sys.stderr, flush=True)
        elif "id" in message:
            found = result(method, params)
            error = {"code": -32601, "message": f"no such method: {method}"}
            send({"id": message["id"], **({"error": error} if found is None else {"result": found})})


if __name__ == "__main__":
    main()
