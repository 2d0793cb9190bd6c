"""Who sent a webhook: signatures as in Standard Webhooks 1.0 (https://www.standardwebhooks.com).

Every submitter has a secret of its own, made from the gateway's: nothing is kept, and nobody can tell one
submitter's from another's.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode

from weft.errors import InvalidRequest

SECRET_PREFIX = "whsec_"  # noqa: S105 -- of every secret in this format
MIN_SIGNING_SECRET = 32
"""Bytes that the gateway's own secret must have."""

_PURPOSE = b"weft webhook secret v1\0"


class WebhookSigner:
    """Signs webhooks."""

    def __init__(self, secret: bytes) -> None:
        """`secret` is what all submitters' are made from. Raises InvalidRequest if it is too short."""
        if len(secret) < MIN_SIGNING_SECRET:
            raise InvalidRequest(f"the secret for webhooks must have {MIN_SIGNING_SECRET} bytes at least")
        self._secret = secret

    def secret_of(self, submitter: str) -> str:
        """With what `submitter` verifies the webhooks of its tasks: `whsec_` and 32 bytes in base64."""
        return SECRET_PREFIX + b64encode(self._derived(submitter)).decode()

    def headers(self, submitter: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """The headers of a webhook for `submitter`, sent at `timestamp` (seconds since 1970)."""
        signed = f"{message_id}.{timestamp}.".encode() + body
        signature = hmac.digest(self._derived(submitter), signed, hashlib.sha256)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": f"v1,{b64encode(signature).decode()}",
        }

    def _derived(self, submitter: str) -> bytes:
        return hmac.digest(self._secret, _PURPOSE + submitter.encode(), hashlib.sha256)
