"""Pods prove themselves with the token that Kubernetes projects into them for this audience.

The token is a JWT (RFC 7519) signed by the cluster, what Kubernetes calls a bound service account token. It
names the pod and its service account: the pod becomes the instance, the service account the agent's type.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt

from weft.controlplane.attestation import Attested
from weft.controlplane.pods import AUDIENCE, Pod, PodAdmission
from weft.errors import Unauthenticated, Unavailable

MAX_KEYS_BYTES = 1024 * 1024

_ALGORITHMS = ["RS256", "ES256"]
_LEEWAY = 10.0


class ServiceAccounts:
    """Attests the pods of one cluster."""

    def __init__(self, admission: PodAdmission, *, issuer: str, keys: Path) -> None:
        """`issuer` is the cluster's; `keys` a file with its public keys (JWKS), read anew at every use."""
        self._admission = admission
        self._issuer = issuer
        self._keys = keys

    async def attest(self, evidence: str, *, instance: str) -> Attested:
        """Which pod has the token `evidence`. Raises as `Attestor.attest` does."""
        claims = self._claims(evidence)
        try:
            bound = claims["kubernetes.io"]
            pod = Pod(
                str(bound["namespace"]), str(bound["serviceaccount"]["name"]), str(bound["pod"]["name"])
            )
        except (KeyError, TypeError) as error:
            raise Unauthenticated("the service account token is not bound to a pod") from error
        return self._admission.admit(pod, instance)

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            key = self._key_set()[str(header.get("kid"))]
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                audience=AUDIENCE,
                issuer=self._issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except KeyError:
            raise Unauthenticated("the service account token is signed by no cluster that is known") from None
        except jwt.InvalidTokenError as error:
            raise Unauthenticated(f"the service account token is refused: {error}") from None
        return claims

    def _key_set(self) -> jwt.PyJWKSet:
        try:
            with self._keys.open("rb") as file:
                return jwt.PyJWKSet.from_dict(json.loads(file.read(MAX_KEYS_BYTES)))
        except (OSError, ValueError, jwt.PyJWTError) as error:
            raise Unavailable(f"the cluster's keys in {self._keys} cannot be read: {error}") from error
