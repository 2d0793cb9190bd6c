"""The API of the cluster in which this process is a pod, as far as an installation begins with it: to create.

Nothing is read, changed or removed: what is there already stays as it is, and whoever may do no more than
create cannot learn what is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from weft.errors import Denied, InvalidRequest, MeshError, Unauthenticated, Unavailable
from weft.identity.cluster_api import ClusterApi
from weft.identity.pod_access import PodAccess


class InCluster:
    """The API server. Use as an async context manager."""

    def __init__(self, access: PodAccess) -> None:
        self.namespace = access.namespace
        self._api = ClusterApi(access)

    async def __aenter__(self) -> Self:
        await self._api.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._api.__aexit__(*error)

    async def create_secret(self, secret: Mapping[str, Any]) -> bool:
        """Create a Secret in the pod's namespace; False if there is one of that name, which stays as it is.

        Raises Unavailable if the API server cannot be reached or is in trouble, Unauthenticated or Denied if
        it does not let this pod, InvalidRequest if it does not take the Secret.
        """
        name = secret["metadata"]["name"]
        answer = await self._api.post(f"/api/v1/namespaces/{self.namespace}/secrets", secret)
        if answer.status == 201:
            return True
        problem = answer.problem()
        if answer.status == 409 and problem.reason == "AlreadyExists":
            return False
        raise self._error(answer.status, f"Secret {self.namespace}/{name}", problem.message)

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
