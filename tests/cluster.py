"""A Kubernetes cluster, as far as it signs service account tokens."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from weft.controlplane.pods import AUDIENCE

ISSUER = "https://cluster.example"


class Cluster:
    """Signs service account tokens as a Kubernetes cluster does."""

    def __init__(self, directory: Path) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.keys = directory / "jwks.json"
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        self.keys.write_text(json.dumps({"keys": [{**public, "kid": "one", "use": "sig"}]}))

    def token(self, *, kid: str = "one", **changes: Any) -> str:
        now = time.time()
        claims = {
            "iss": ISSUER,
            "aud": [AUDIENCE],
            "sub": "system:serviceaccount:crew:editor",
            "iat": now,
            "exp": now + 600,
            "kubernetes.io": {
                "namespace": "crew",
                "pod": {"name": "editor-0", "uid": "1"},
                "serviceaccount": {"name": "editor", "uid": "2"},
            },
            **changes,
        }
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": kid})

    def pod_token(self, namespace: str, account: str, pod: str) -> str:
        """The token that is projected into a pod with this service account."""
        bound = {
            "namespace": namespace,
            "pod": {"name": pod, "uid": "1"},
            "serviceaccount": {"name": account, "uid": "2"},
        }
        claims: dict[str, Any] = {
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "kubernetes.io": bound,
        }
        return self.token(**claims)
