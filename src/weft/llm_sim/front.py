"""The simulator's paths: OpenAI's API, Azure's shape of it, and its own at `/sim/`."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from pydantic_core import from_json, to_json

from weft.errors import InvalidRequest
from weft.llm_sim.ask import Endpoint
from weft.llm_sim.behaviour import changed
from weft.llm_sim.counters import key_name
from weft.llm_sim.failures import ApiError, invalid
from weft.llm_sim.http import Connection, HttpRequest, Job
from weft.llm_sim.simulator import SIMULATED, Simulator

MAX_RECORDED_BYTES: Final = 64 * 1024
"""Of the body of a request that is recorded."""

_ENDPOINTS = {f"{root}/{each}": each for root in ("/v1", "/openai/v1") for each in Endpoint}
_DEPLOYMENT = re.compile(r"/openai/deployments/([^/]{1,256})/(chat/completions|completions|embeddings)")
_MODELS = re.compile(r"(?:/openai)?/v1/models(?:/(.{1,256}))?")
_CREDENTIALS = frozenset({"authorization", "api-key"})


class Front:
    """Takes every request. `handle` and `refuse` are what an HTTP server calls."""

    def __init__(self, simulator: Simulator, *, record: int = 0) -> None:
        """The last `record` requests are kept for `GET /sim/requests`."""
        self._simulator = simulator
        self._recorded: deque[dict[str, Any]] = deque(maxlen=record)
        self._own: dict[tuple[str, str], Callable[[HttpRequest], Any]] = {
            ("GET", "/health"): lambda _: {"status": "ok"},
            ("GET", "/sim/stats"): lambda _: simulator.stats(),
            ("GET", "/sim/requests"): lambda _: list(self._recorded),
            ("GET", "/sim/behaviour"): lambda _: self._behaviour(),
            ("POST", "/sim/behaviour"): self._change,
            ("POST", "/sim/reset"): lambda _: self._reset(),
        }

    def handle(self, request: HttpRequest, connection: Connection) -> Job | None:
        """Answer a request: at once, or by what is returned."""
        try:
            endpoint, deployment = _endpoint(request)
            if endpoint is None:
                connection.respond(200, to_json(self._other(request)), (SIMULATED,))
                return None
            if self._recorded.maxlen:
                self._recorded.append(_record(request))
            return self._simulator.ask(endpoint, deployment, request, connection)
        except ApiError as error:
            if error.status != 429:
                self._simulator.counters.invalid += 1
            self._simulator.fail(connection, error)
        return None

    def refuse(self, status: int, text: str) -> bytes:
        """The body of an answer to what is no request."""
        self._simulator.counters.invalid += 1
        return ApiError(status, text).body

    def _other(self, request: HttpRequest) -> Any:
        """The answer to all that asks no model. Raises ApiError."""
        own = self._own.get((request.method, request.path))
        if own is not None:
            return own(request)
        found = _MODELS.fullmatch(request.path)
        if found is None or request.method != "GET":
            text = f"Unknown request URL: {request.method} {request.path[:256]}."
            raise ApiError(404, text, code="unknown_url")
        self._simulator.authorize(request)
        if found[1] is None:
            models = self._simulator.behaviour.models or ("weft-llm-sim",)
            return {"object": "list", "data": [_model(each) for each in models]}
        name = unquote(found[1])
        self._simulator.check_model(name)
        return _model(name)

    def _behaviour(self) -> dict[str, Any]:
        return self._simulator.behaviour.model_dump(mode="json", by_alias=True)

    def _change(self, request: HttpRequest) -> dict[str, Any]:
        try:
            given = from_json(request.body, allow_inf_nan=False)
        except ValueError as error:
            raise invalid(f"the body is not JSON: {error}") from error
        if not isinstance(given, dict):
            raise invalid("the body must be a JSON object")
        try:
            self._simulator.behaviour = changed(self._simulator.behaviour, given)
        except InvalidRequest as error:
            raise invalid(error.detail) from error
        return self._behaviour()

    def _reset(self) -> dict[str, Any]:
        self._simulator.reset()
        self._recorded.clear()
        return self._simulator.stats()


def _endpoint(request: HttpRequest) -> tuple[Endpoint | None, str | None]:
    """Which endpoint of the API is called, and the model if the path names it. Raises ApiError."""
    endpoint = _ENDPOINTS.get(request.path)
    if endpoint is not None:
        _check_method(request)
        return endpoint, None
    found = _DEPLOYMENT.fullmatch(request.path)
    if found is None:
        return None, None
    _check_method(request)
    if "api-version" not in parse_qs(request.query):
        raise ApiError(404, "Resource not found: the query has no api-version", code="404")
    return Endpoint(found[2]), unquote(found[1])


def _check_method(request: HttpRequest) -> None:
    if request.method != "POST":
        raise ApiError(405, f"{request.path} takes POST only", code="method_not_allowed")


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "weft-llm-sim"}


def _record(request: HttpRequest) -> dict[str, Any]:
    """A request as `GET /sim/requests` shows it: keys by their names only."""
    headers = {
        name: key_name(value.removeprefix("Bearer ")) if name in _CREDENTIALS else value
        for name, value in request.headers.items()
    }
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": headers,
        "bodyBytes": len(request.body),
        "body": request.body[:MAX_RECORDED_BYTES].decode("utf-8", "replace"),
    }
