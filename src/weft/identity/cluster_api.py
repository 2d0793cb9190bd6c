"""Asking the API server of the cluster in which this process is a pod: one JSON document, one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx
from pydantic import BaseModel, ValidationError

from weft.errors import Unavailable
from weft.identity.pod_access import PodAccess

TIMEOUT = 30.0
"""Seconds the API server has to answer, unless told otherwise."""

MAX_ANSWER_BYTES = 1024 * 1024
_MAX_MESSAGE = 1000  # characters of what the API server says is wrong


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server answered."""

    status: int
    content: bytes

    def problem(self) -> Problem:
        """What it says is wrong; empty where it says nothing that can be read."""
        try:
            said = Problem.model_validate_json(self.content)
        except ValidationError:
            return Problem()
        return Problem(reason=said.reason[:_MAX_MESSAGE], message=said.message[:_MAX_MESSAGE])


class Problem(BaseModel):
    """What the API server says of a request that it did not do: meta/v1 Status."""

    reason: str = ""
    message: str = ""


class ClusterApi:
    """The API server. Use as an async context manager."""

    def __init__(self, access: PodAccess, *, timeout: float = TIMEOUT) -> None:
        """`timeout` is the seconds that a question may take, from first to last."""
        self.url = access.url
        self._timeout = timeout
        self._http = httpx.AsyncClient(
            base_url=access.url,
            verify=access.trust,
            headers={"authorization": f"Bearer {access.token}"},
            timeout=timeout,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def post(self, path: str, document: Mapping[str, Any]) -> Answer:
        """The answer to `document`, whatever its status. Raises Unavailable if there is none."""
        return await self._ask("POST", path, document, "application/json")

    async def merge(self, path: str, changes: Mapping[str, Any]) -> Answer:
        """The answer to `changes` of what is at `path` (a merge patch, RFC 7396). Raises as `post` does."""
        return await self._ask("PATCH", path, changes, "application/merge-patch+json")

    async def _ask(self, method: str, path: str, document: Mapping[str, Any], media_type: str) -> Answer:
        headers = {"content-type": media_type}
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream(method, path, json=document, headers=headers) as response,
            ):
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise Unavailable(f"{self.url} answers with more than {MAX_ANSWER_BYTES} bytes")
                return Answer(response.status_code, bytes(content))
        except (httpx.HTTPError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"the cluster's API at {self.url} does not answer: {reason}") from error
