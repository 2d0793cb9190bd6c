"""The keys that an installation on a cluster begins with, as Secrets of core/v1: made once, never anew.

| Secret | what is in it |
|---|---|
| `<name>-nats` | the files of `weft.local.nats_security`, and the public halves of its nkeys |
| `<name>-sealing-key` | `sealing.key`, which seals the authority's keys and the Secrets in NATS |
| `<name>-operator-token` | `token`, an admin token to begin with |
| `<name>-webhook` | the certificate of the webhooks, its key and its authority |

What belongs together is in one Secret, which is there as a whole or not at all: however often its making is
broken off, no two halves of different makings meet. A pod mounts those parts that it needs.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from weft.controlplane.sealing import new_sealing_key
from weft.kubernetes.webhook.certificates import webhook_keys
from weft.local.nats_security import THIS_MACHINE, NatsSecurity, make_nats_security
from weft.model.names import check_name
from weft.model.operator import new_token

SEALING_KEY = "sealing.key"
OPERATOR_TOKEN = "token"  # noqa: S105 -- its name
CONTROL_USER = "control.public"
"""In `<name>-nats`: the public nkey of the control plane's user, for NATS's configuration."""
ISSUER = "issuer.public"
"""In `<name>-nats`: the public nkey of who answers NATS's questions about connections, likewise."""

DEFAULT_NAME = "weft"
DEFAULT_CLUSTER_DOMAIN = "cluster.local"


def first_keys(
    name: str, namespace: str, cluster_domain: str = DEFAULT_CLUSTER_DOMAIN
) -> list[dict[str, Any]]:
    """New keys for the installation `name` in `namespace`, as Secrets.

    Raises InvalidRequest where `name` is no name, OSError if there is no room for temporary files.
    """
    check_name(name)
    return [
        _secret(f"{name}-nats", _nats(nats_hosts(name, namespace, cluster_domain))),
        _secret(f"{name}-sealing-key", {SEALING_KEY: f"{new_sealing_key()}\n".encode()}),
        _secret(f"{name}-operator-token", {OPERATOR_TOKEN: f"{new_token()}\n".encode()}),
        _secret(f"{name}-webhook", webhook_keys(webhook_hosts(name, namespace, cluster_domain))),
    ]


def webhook_hosts(name: str, namespace: str, cluster_domain: str = DEFAULT_CLUSTER_DOMAIN) -> list[str]:
    """By which names the webhooks of an installation can be connected to: those of its Service."""
    return _service(f"{name}-webhook", namespace, cluster_domain)


def nats_hosts(name: str, namespace: str, cluster_domain: str = DEFAULT_CLUSTER_DOMAIN) -> list[str]:
    """By which names the NATS of an installation can be connected to: its Service, and each pod behind it."""
    names = _service(f"{name}-nats", namespace, cluster_domain)
    # Not `*.<service>` alone: many clients take no wildcard right below a top level.
    return [*names, *(f"*.{each}" for each in names[1:]), *THIS_MACHINE]


def _service(service: str, namespace: str, cluster_domain: str) -> list[str]:
    inside = f"{service}.{namespace}.svc"
    return [service, f"{service}.{namespace}", inside, f"{inside}.{cluster_domain}"]


def _nats(hosts: list[str]) -> Mapping[str, bytes]:
    with TemporaryDirectory() as directory:
        security = make_nats_security(Path(directory) / "nats", hosts)
        public = {CONTROL_USER: security.control_user.encode(), ISSUER: security.issuer.encode()}
        return {**{each.name: each.read_bytes() for each in _files(security)}, **public}


def _files(security: NatsSecurity) -> tuple[Path, ...]:
    return (
        security.certificate,
        security.key,
        security.roots,
        security.control_credentials,
        security.control_seed,
        security.issuer_seed,
    )


def _secret(name: str, data: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "weft"}},
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }
