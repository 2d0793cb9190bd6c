"""Pods prove themselves with a service account token that the cluster itself is asked about.

By TokenReview of authentication.k8s.io/v1: the API server says whose the token is, and that the pod it is
bound to is still there, which the token alone does not tell. Every token is asked about, every time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import jwt
from pydantic import BaseModel, ValidationError

from weft.controlplane.attestation import Attested
from weft.controlplane.pods import AUDIENCE, Pod, PodAdmission
from weft.errors import InvalidRequest, Unauthenticated, Unavailable
from weft.identity.cluster_api import Answer, ClusterApi
from weft.identity.pod_access import PodAccess

PATH = "/apis/authentication.k8s.io/v1/tokenreviews"

REVIEW_TIMEOUT = 10.0
"""Seconds for one question, with the wait for its turn."""

MAX_AT_ONCE = 16
"""Questions under way; others wait. Anybody may come with a token, and the API server has other work."""

_ACCOUNT_PREFIX = "system:serviceaccount:"
_POD_NAME = "authentication.kubernetes.io/pod-name"
_MAX_SAID = 300  # characters of what the API server says about a token

logger = logging.getLogger(__name__)


class _User(BaseModel):
    username: str = ""
    extra: dict[str, list[str]] = {}


class _Outcome(BaseModel):
    authenticated: bool = False
    user: _User = _User()
    audiences: list[str] = []
    error: str = ""


class _Review(BaseModel):
    status: _Outcome


class TokenReviews:
    """Attests the pods of the cluster in which this process runs."""

    def __init__(
        self,
        admission: PodAdmission,
        access: Callable[[], PodAccess],
        *,
        timeout: float = REVIEW_TIMEOUT,
    ) -> None:
        """`access` is asked at every question: Kubernetes replaces a pod's token every hour or so.

        `timeout` is the seconds that a review may take. Raises InvalidRequest as `access` does.
        """
        access()
        self._admission = admission
        self._access = access
        self._timeout = timeout
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)

    async def attest(self, evidence: str, *, instance: str) -> Attested:
        """Which pod has the token `evidence`. Raises as `Attestor.attest` does."""
        _check_audience(evidence)
        try:
            answer = await self._ask(evidence)
            outcome = _outcome(answer)
        except (Unavailable, InvalidRequest) as error:
            # Whoever asks need not know how this pod comes to its cluster's API; the operator must.
            logger.warning("a service account token could not be reviewed: %s", error.detail)
            raise Unavailable(
                "the cluster could not be asked about the service account token; the control plane's log "
                "says why"
            ) from error
        return self._admission.admit(_pod(outcome), instance)

    async def _ask(self, token: str) -> Answer:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._turns,
                ClusterApi(self._access(), timeout=self._timeout) as api,
            ):
                return await api.post(PATH, review)
        except TimeoutError as error:
            raise Unavailable(f"the cluster's API does not answer within {self._timeout:g} s") from error


def _check_audience(token: str) -> None:
    """Raise Unauthenticated if `token` is none for a mesh: the API server need not be asked about it."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        raise Unauthenticated("this is no service account token") from error
    audiences = claims.get("aud")
    if AUDIENCE not in (audiences if isinstance(audiences, list) else [audiences]):
        raise Unauthenticated(f"the service account token is not for the audience {AUDIENCE!r}")


def _outcome(answer: Answer) -> _Outcome:
    if answer.status not in (200, 201):
        said = answer.problem().message
        raise Unavailable(
            f"the API server answers {answer.status} ({said})"
            + (
                ": give the control plane's service account a ClusterRole that may create tokenreviews of "
                "authentication.k8s.io"
                if answer.status in (401, 403)
                else ""
            )
        )
    try:
        return _Review.model_validate_json(answer.content).status
    except ValidationError as error:
        raise Unavailable("the API server's answer is no TokenReview") from error


def _pod(outcome: _Outcome) -> Pod:
    if not outcome.authenticated:
        reason = f": {outcome.error[:_MAX_SAID]}" if outcome.error else ""
        raise Unauthenticated(f"the cluster refuses the service account token{reason}")
    # A server that knows of no audiences would take a token for anybody.
    if AUDIENCE not in outcome.audiences:
        raise Unauthenticated(f"the cluster does not say that the token is for the audience {AUDIENCE!r}")
    prefix, _, account = outcome.user.username.rpartition(":")
    namespace = prefix.removeprefix(_ACCOUNT_PREFIX)
    if prefix == namespace or not account or ":" in namespace:
        raise Unauthenticated("the token is no service account's")
    names = outcome.user.extra.get(_POD_NAME, [])
    if len(names) != 1:
        raise Unauthenticated("the service account token is not bound to a pod")
    return Pod(namespace, account, names[0])
