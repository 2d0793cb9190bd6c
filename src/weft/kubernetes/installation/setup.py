"""Which installation it is, and what all parts of it call each other."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from typing import Any, Final

from weft.errors import InvalidRequest
from weft.kubernetes.first_keys import DEFAULT_NAME
from weft.kubernetes.installation_values import GATEWAY_NAME_PATTERN, MAX_NAME_LENGTH, InstallationValues

Document = dict[str, Any]
"""An object of Kubernetes, as JSON types."""

DEFAULT_NAMESPACE: Final = "weft-system"

API_PORT: Final = 7400
XDS_PORT: Final = 7401
DASHBOARD_PORT: Final = 7404
METRICS_PORT: Final = 7405
"""The control plane's."""

PUBLISHER_PORT: Final = 7406
"""Where it is asked whether the mesh's roots have been published."""

NATS_PORT: Final = 4222
NATS_CLUSTER_PORT: Final = 6222
NATS_HEALTH_PORT: Final = 8223

WEBHOOK_PORT: Final = 9443
HEALTH_PORT: Final = 8081
"""Of the controller and the webhook: probes and metrics."""

SIDECAR_PORT: Final = 7443
SIDECAR_METRICS_PORT: Final = 7490


PARTS: Final = ("bootstrap", "nats", "control", "controller", "webhook")
"""Those with a service account of their own."""


@dataclass(frozen=True, slots=True)
class Setup:
    """One installation. Making it raises InvalidRequest where a name is none."""

    values: InstallationValues = field(default_factory=InstallationValues)
    name: str = DEFAULT_NAME
    """What the names of all its objects begin with."""
    namespace: str = DEFAULT_NAMESPACE
    version: str = field(default_factory=lambda: installed_version("weft"))

    def __post_init__(self) -> None:
        """Raise InvalidRequest where a name is none."""
        if len(self.name) > MAX_NAME_LENGTH or not re.fullmatch(GATEWAY_NAME_PATTERN, self.name):
            raise InvalidRequest(
                f"the installation's name {self.name!r} cannot be: use 1 to {MAX_NAME_LENGTH} lower-case "
                f"letters, digits and hyphens, beginning with a letter and not ending with a hyphen"
            )
        if len(self.namespace) > 63 or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", self.namespace):
            raise InvalidRequest(f"the namespace {self.namespace!r} cannot be: it is no DNS label")
        for each in {self.named(part) for part in PARTS} & {*self.values.gateways}:
            raise InvalidRequest(f"gateway {each!r} would have the service account of a part: name it anew")

    @property
    def image(self) -> str:
        """What everything runs from, as containers name it."""
        image = self.values.image
        path = f"{image.registry}/{image.repository}" if image.registry else image.repository
        return f"{path}@{image.digest}" if image.digest else f"{path}:{image.tag or self.version}"

    def named(self, part: str) -> str:
        """The name of the objects of a part."""
        return f"{self.name}-{part}"

    def host(self, part: str) -> str:
        """The host name of a part's Service, in the cluster."""
        return f"{self.named(part)}.{self.namespace}.svc"

    @property
    def api(self) -> str:
        """URL of the control plane's API."""
        return f"https://{self.host('control')}:{API_PORT}"

    @property
    def xds(self) -> str:
        """`host:port` of its xDS."""
        return f"{self.host('control')}:{XDS_PORT}"

    @property
    def nats(self) -> str:
        """URL of NATS: of any of the servers."""
        return f"tls://{self.host('nats')}:{NATS_PORT}"

    @property
    def roots(self) -> str:
        """The ConfigMap with the mesh's roots; in agents' namespaces it has that name too."""
        return self.named("roots")

    @property
    def nats_hosts(self) -> tuple[str, ...]:
        """The host name of each NATS server."""
        return tuple(
            f"{self.named('nats')}-{index}.{self.host('nats')}" for index in range(self.values.nats.replicas)
        )

    def selector(self, part: str) -> dict[str, str]:
        """The labels that never change of a part's pods."""
        return {
            "app.kubernetes.io/name": "weft",
            "app.kubernetes.io/instance": self.name,
            "app.kubernetes.io/component": part,
        }

    def labels(self, part: str) -> dict[str, str]:
        """The labels of everything of a part."""
        return {
            **self.selector(part),
            "app.kubernetes.io/part-of": "weft",
            "app.kubernetes.io/version": self.version,
        }

    def document(self, api_version: str, kind: str, part: str, *, name: str = "", **fields: Any) -> Document:
        """An object of a part, in the installation's namespace; `name` where it is not the part's own."""
        metadata = {
            "name": name or self.named(part),
            "namespace": self.namespace,
            "labels": self.labels(part),
        }
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}

    def cluster_document(
        self, api_version: str, kind: str, part: str, *, name: str = "", **fields: Any
    ) -> Document:
        """An object of a part that belongs to no namespace."""
        document = self.document(api_version, kind, part, name=name, **fields)
        del document["metadata"]["namespace"]
        return document
