"""Secrets on Kubernetes: values are referred to, and never in a custom resource themselves.

Whoever may read a custom resource reads all of it, and etcd keeps it as it is. So Weft's Secrets name values
of Kubernetes' own Secrets, for which a cluster's administrators have rules and encryption of their own.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from weft.model.secret import Injection, SecretKey
from weft.model.spec import MAX_ITEMS, Spec

SubdomainName = Annotated[
    str,
    StringConstraints(
        max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
    ),
]
"""The name of most things in Kubernetes: RFC 1123 labels, with dots between them."""

DataKey = Annotated[str, StringConstraints(max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
"""The name of a value in a Secret or a ConfigMap of Kubernetes."""


class SecretKeyReference(Spec):
    """A value of a Secret of Kubernetes, in the same namespace."""

    name: SubdomainName
    """The Secret."""
    key: DataKey
    """Which value of its `data`."""


class SecretSource(Spec):
    """Where a value is."""

    secret_key_ref: SecretKeyReference
    """A value of a Secret of Kubernetes, in the same namespace."""


class KubernetesSecretSpec(Spec):
    """Values that are sealed in the mesh's store, never shown, and added to calls by Envoy."""

    data: Annotated[dict[SecretKey, SecretSource], Field(min_length=1, max_length=MAX_ITEMS)]
    """Where the values are: in Kubernetes' own Secrets."""
    inject: Annotated[tuple[Injection, ...], Field(max_length=MAX_ITEMS)] = ()
    """The calls to which values are added."""
