"""Errors of the simulated provider, in OpenAI's format."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

from weft.llm_sim.limits import Exceeded, Headers, Limit, retry_headers

INVALID = "invalid_request_error"

HTML_ERROR = b"""<html>
<head><title>502 Bad Gateway</title></head>
<body><center><h1>502 Bad Gateway</h1></center><hr><center>weft-llm-sim</center></body>
</html>
"""


class ApiError(Exception):
    """A request that gets an error instead of an answer."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
        self._kind = kind
        self._code = code
        self._param = param

    @property
    def document(self) -> dict[str, Any]:
        """As JSON types."""
        error = {
            "message": self.message,
            "type": self._kind,
            "param": self._param,
            "code": self._code,
        }
        return {"error": error}

    @property
    def body(self) -> bytes:
        """As it is sent."""
        return to_json(self.document)


def invalid(message: str, param: str | None = None) -> ApiError:
    """A request that makes no sense."""
    return ApiError(400, message, param=param)


def no_such_model(model: str) -> ApiError:
    """A model there is not."""
    return ApiError(404, f"The model `{model[:128]}` does not exist.", code="model_not_found", param="model")


def too_long(limit: int, prompt: int, answer: int) -> ApiError:
    """More than the model's context."""
    return ApiError(
        400,
        f"This model's maximum context length is {limit} tokens. However, you requested {prompt + answer} "
        f"tokens ({prompt} in the prompt, {answer} in the answer).",
        code="context_length_exceeded",
        param="messages",
    )


def limited(model: str, exceeded: Exceeded) -> ApiError:
    """A limit that is exceeded."""
    unit = {
        Limit.CONCURRENCY: "concurrent requests",
        Limit.REQUESTS: "requests per min",
        Limit.TOKENS: "tokens per min",
    }[exceeded.limit]
    return ApiError(
        429,
        f"Rate limit reached for {model[:128]} on {unit}: Limit {exceeded.allowed}, Used {exceeded.present}, "
        f"Requested {exceeded.asked}. Please try again in {exceeded.retry_after_ms}ms.",
        kind=exceeded.limit.value,
        code="rate_limit_exceeded",
        headers=retry_headers(exceeded.retry_after_ms),
    )


def failure(status: int, retry_after: float | None = None) -> ApiError:
    """A failure that was asked for, or that chance made."""
    headers = () if retry_after is None else retry_headers(round(retry_after * 1000))
    kind, code = {
        401: (INVALID, "invalid_api_key"),
        429: ("requests", "rate_limit_exceeded"),
    }.get(status, (INVALID, None) if status < 500 else ("server_error", None))
    return ApiError(
        status,
        f"The simulated provider fails, as it was told ({status}).",
        kind=kind,
        code=code,
        headers=headers,
    )
