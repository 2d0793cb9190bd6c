"""What each type of agent has outside the mesh, kept up to date as Secrets and Egresses change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from weft.controlplane.translate.credentials import Credential, credential_cluster, credential_secret
from weft.controlplane.translate.egress import Outside, outside_of
from weft.controlplane.xds.snapshot import EncodedResource, encode
from weft.model.egress import EgressSpec
from weft.model.resource import AnyResource
from weft.model.secret import Sealed, SecretSpec

MAX_KEPT = 256
"""How many outsides are kept encoded at once."""

MAX_CALLERS = 4096
"""For how many types it is kept which outside they have."""

SecretValue = Callable[[AnyResource, str], str | None]
"""Opens the value of a key of a Secret; None if it cannot be opened."""

Encoded = Mapping[str, EncodedResource]


def unopened(_secret: AnyResource, _key: str) -> str | None:
    """Opens nothing: where there is no sealing key."""
    return None


@dataclass(frozen=True, slots=True)
class OpenedValue:
    """A value that could be opened."""

    text: str = field(repr=False)
    box: str = field(repr=False)
    """As it is sealed, which is as good as the value for telling whether it changed."""


class OutsideWorld:
    """What is outside the mesh, for every type of agent, by the resources last given to `update`."""

    def __init__(self, secret_value: SecretValue) -> None:
        self._secret_value = secret_value
        self._resources: tuple[AnyResource, ...] = ()
        self._values: dict[tuple[str, str], OpenedValue] = {}
        self._callers: dict[str | None, Outside] = {}
        self._clusters: dict[Outside, tuple[Encoded, Encoded]] = {}
        """The mesh's clusters, and these with those of the outside."""
        self._secrets: dict[Outside, Encoded] = {}

    def update(self, resources: Iterable[AnyResource]) -> bool:
        """Take over what is declared now; whether that changes anything for anyone."""
        relevant = tuple(each for each in resources if isinstance(each.spec, SecretSpec | EgressSpec))
        if relevant == self._resources:
            return False
        self._resources = relevant
        self._values = opened_values(relevant, _injected, self._secret_value)
        self._callers.clear()
        self._secrets.clear()
        return True

    def of(self, caller: str | None) -> Outside:
        """The outside as the agents of a type have it; None stands for a sidecar without an agent."""
        if caller not in self._callers:
            _make_room(self._callers, MAX_CALLERS)
            outside = outside_of(caller, self._resources)
            credentials = tuple(
                replace(each, usable=self._value(each) is not None) for each in outside.credentials
            )
            self._callers[caller] = replace(outside, credentials=credentials)
        return self._callers[caller]

    def clusters(self, outside: Outside, mesh: Encoded) -> Encoded:
        """The clusters of `mesh`, and those of `outside`; the same mapping as long as both are the same."""
        usable = [each for each in outside.credentials if each.usable]
        if not usable:
            return mesh
        before, joined = self._clusters.get(outside, (None, mesh))
        if before is not mesh:
            _make_room(self._clusters)
            own = {each.cluster: encode(each.cluster, credential_cluster(each)) for each in usable}
            joined = {**mesh, **own}
            self._clusters[outside] = (mesh, joined)
        return joined

    def secrets(self, outside: Outside) -> Encoded:
        """The values that Envoy adds for those who have this `outside`."""
        if outside not in self._secrets:
            _make_room(self._secrets)
            self._secrets[outside] = {
                each.cluster: self._secret(each, value)
                for each in outside.credentials
                if (value := self._value(each)) is not None
            }
        return self._secrets[outside]

    def _value(self, credential: Credential) -> OpenedValue | None:
        return self._values.get((credential.secret, credential.injection.key))

    def _secret(self, credential: Credential, value: OpenedValue) -> EncodedResource:
        identity = f"{credential.injection.prefix}\n{value.box}".encode()
        message = credential_secret(credential.cluster, credential.injection.prefix + value.text)
        return encode(credential.cluster, message, identity=identity)


def opened_values(
    resources: Iterable[AnyResource],
    keys_of: Callable[[AnyResource], Iterable[str]],
    secret_value: SecretValue,
) -> dict[tuple[str, str], OpenedValue]:
    """By Secret and key, the values of `keys_of` each Secret that can be opened."""
    found = {}
    for resource in resources:
        if not isinstance(resource.spec, SecretSpec):
            continue
        for key in set(keys_of(resource)):
            sealed, text = resource.spec.data.get(key), secret_value(resource, key)
            if isinstance(sealed, Sealed) and text is not None:
                found[resource.metadata.name, key] = OpenedValue(text, sealed.box)
    return found


def _injected(secret: AnyResource) -> Iterable[str]:
    return [each.key for each in secret.spec.inject]


def _make_room(kept: dict[Any, Any], most: int = MAX_KEPT) -> None:
    while len(kept) >= most:
        del kept[next(iter(kept))]
