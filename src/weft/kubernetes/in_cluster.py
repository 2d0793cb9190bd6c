"""The API of the cluster in which this process is a pod, as far as an installation begins with it: to create.

Nothing is read, changed or removed: what is there already stays as it is, and whoever may do no more than
create cannot learn what is there.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from pydantic import BaseModel, ValidationError

from weft.errors import Denied, InvalidRequest, MeshError, Unauthenticated, Unavailable
from weft.model.node import Address

CREDENTIALS = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the token of its service account, the roots of the API server, and its namespace."""

TIMEOUT = 30.0
"""Seconds the API server has to answer."""

MAX_ANSWER_BYTES = 1024 * 1024
_MAX_FILE_BYTES = 1024 * 1024
_MAX_MESSAGE = 1000  # characters of what the API server says is wrong


@dataclass(frozen=True, slots=True)
class PodAccess:
    """Where the API server is, and as whom this pod comes."""

    url: str
    token: str
    trust: ssl.SSLContext
    namespace: str

    @classmethod
    def of(cls, environ: Mapping[str, str], credentials: Path = CREDENTIALS) -> Self:
        """What a pod is given. Raises InvalidRequest if this process is in none, or was not given all."""
        host = environ.get("KUBERNETES_SERVICE_HOST", "")
        port = environ.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port.isdecimal():
            raise InvalidRequest(
                "this runs in a pod of a cluster only: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT "
                "do not say where its API is"
            )
        authority = credentials / "ca.crt"
        try:
            trust = ssl.create_default_context(cadata=_read(authority))
        except ssl.SSLError as error:
            raise InvalidRequest(f"{authority} holds no certificates (PEM)") from error
        trust.minimum_version = ssl.TLSVersion.TLSv1_2
        return cls(
            f"https://{Address(host, int(port))}",
            _read(credentials / "token").strip(),
            trust,
            _read(credentials / "namespace").strip(),
        )


class InCluster:
    """The API server. Use as an async context manager."""

    def __init__(self, access: PodAccess) -> None:
        self.namespace = access.namespace
        self._url = access.url
        self._http = httpx.AsyncClient(
            base_url=access.url,
            verify=access.trust,
            headers={"authorization": f"Bearer {access.token}"},
            timeout=TIMEOUT,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def create_secret(self, secret: Mapping[str, Any]) -> bool:
        """Create a Secret in the pod's namespace; False if there is one of that name, which stays as it is.

        Raises Unavailable if the API server cannot be reached or is in trouble, Unauthenticated or Denied if
        it does not let this pod, InvalidRequest if it does not take the Secret.
        """
        name = secret["metadata"]["name"]
        status, content = await self._post(f"/api/v1/namespaces/{self.namespace}/secrets", secret)
        if status == 201:
            return True
        problem = _Status.of(content)
        if status == 409 and problem.reason == "AlreadyExists":
            return False
        raise self._error(status, f"Secret {self.namespace}/{name}", problem.message)

    async def _post(self, path: str, document: Mapping[str, Any]) -> tuple[int, bytes]:
        try:
            async with (
                asyncio.timeout(TIMEOUT),
                self._http.stream("POST", path, json=document) as response,
            ):
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise Unavailable(f"{self._url} answers with more than {MAX_ANSWER_BYTES} bytes")
                return response.status_code, bytes(content)
        except (httpx.TransportError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"the cluster's API at {self._url} does not answer: {reason}") from error

    def _error(self, status: int, what: str, message: str) -> MeshError:
        said = f"{what} could not be created: the API server answers {status}" + (
            f" ({message})" if message else ""
        )
        match status:
            case 401:
                return Unauthenticated(f"{said}: is the pod's service account token of this cluster?")
            case 403:
                return Denied(f"{said}: give the pod's service account a Role that may create Secrets")
            case 429:
                return Unavailable(said)
        return InvalidRequest(said) if 400 <= status < 500 else Unavailable(said)


class _Status(BaseModel):
    """What the API server says of a request that it did not do: meta/v1 Status."""

    reason: str = ""
    message: str = ""

    @classmethod
    def of(cls, content: bytes) -> Self:
        try:
            status = cls.model_validate_json(content)
        except ValidationError:
            return cls()
        return cls(reason=status.reason, message=status.message[:_MAX_MESSAGE])


def _read(file: Path) -> str:
    try:
        with file.open(encoding="ascii") as source:
            return source.read(_MAX_FILE_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"{file}, which a pod has, cannot be read ({error}): is its service account's token mounted?"
        ) from error
