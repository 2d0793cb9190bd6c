"""Who answers at the control plane's ports: the dashboard under its path, and the API."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from weft.dashboard import PATH


def front(api: ASGIApp, dashboard: ASGIApp) -> ASGIApp:
    """One application of both. What is the dashboard's never comes to the API, nor to what guards that."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path == PATH or path.startswith(f"{PATH}/"):
            await dashboard(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # not accepted yet: an answer of 403
        else:
            await api(scope, receive, send)

    return answer
