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
from weft.errors import Denied, InvalidRequest, Unauthenticated, Unavailable
from weft.model.spiffe import agent_id

AUDIENCE = "weft"
"""The audience for which the token must be projected."""

MAX_KEYS_BYTES = 1024 * 1024

_ALGORITHMS = ["RS256", "ES256"]
_LEEWAY = 10.0
_NAMESPACE_LABEL = "namespace"


class ServiceAccounts:
    """Attests the pods of one cluster."""

    def __init__(self, trust_domain: str, *, issuer: str, keys: Path) -> None:
        """`issuer` is the cluster's; `keys` a file with its public keys (JWKS), read anew at every use."""
        self._trust_domain = trust_domain
        self._issuer = issuer
        self._keys = keys

    async def attest(self, evidence: str, *, instance: str) -> Attested:
        """Which pod has the token `evidence`. Raises as `Attestor.attest` does."""
        claims = self._claims(evidence)
        try:
            pod = claims["kubernetes.io"]
            name, account = pod["pod"]["name"], pod["serviceaccount"]["name"]
            namespace = pod["namespace"]
            if name != instance:
                raise Denied(f"the service account token is pod {name!r}'s, not {instance!r}'s")
            return Attested(
                agent_id(self._trust_domain, account, name),
                {_NAMESPACE_LABEL: namespace},
                f"service account {namespace}/{account}",
            )
        except (KeyError, TypeError) as error:
            raise Unauthenticated("the service account token is not bound to a pod") from error
        except InvalidRequest as error:
            raise Unauthenticated(f"the pod cannot be an agent of the mesh: {error.detail}") from error

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
