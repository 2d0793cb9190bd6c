"""Whose an identity is: what is kept for one tenant is not there for another."""

from __future__ import annotations

from collections.abc import Mapping

TENANT_LABEL = "tenant"
"""The attested label that names the tenant of an identity."""

DEFAULT_TENANT = "default"
"""The tenant of identities without that label: of all of them, in a mesh that has no tenants."""

MAX_TENANT_LENGTH = 256


def tenant_of(attested: Mapping[str, str] | None) -> str:
    """The tenant of who has these labels: those that the authority attested, not those an instance claims."""
    return (attested or {}).get(TENANT_LABEL) or DEFAULT_TENANT
