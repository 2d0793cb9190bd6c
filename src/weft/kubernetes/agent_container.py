"""What changes in the container of the agent itself: environment, probes, its end. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from weft.kubernetes.agent_in_pod import AgentInPod, literal_environment
from weft.kubernetes.injection_settings import InjectionSettings
from weft.kubernetes.problem import Problem, warning
from weft.model.node import Address, Inbound, Node
from weft.sidecar.kubelet_answers import DRAINED_PATH, PROBES_PATH
from weft.sidecar.program import LLM_VARIABLE, environment
from weft.sidecar.settings import LOOPBACK, SidecarSettings

INSTANCE_VARIABLE: Final = "WEFT_INSTANCE"
PROBES: Final = {"startupProbe": "startup", "readinessProbe": "readiness", "livenessProbe": "liveness"}
"""The probes of a container, and what the sidecar calls them."""

_INSTANCE: Final = "weft-instance-placeholder"
_EXTENDED: Final = frozenset({"NO_PROXY", "no_proxy", "OTEL_RESOURCE_ATTRIBUTES"})
"""Variables that are lists: what the author put there is kept, and more is put behind it."""
_TWINS: Final = {
    one: other
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    for one, other in ((upper, upper.lower()), (upper.lower(), upper))
}
"""Variables that mean the same to different programs."""
_MODELS: Final = ("OPENAI_BASE_URL", "OPENAI_API_KEY")


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables that the agent's container gets."""

    entries: tuple[dict[str, Any], ...]
    """In the order in which they must stand, before those of the author."""
    problems: tuple[Problem, ...]


def agent_environment(
    container: Mapping[str, Any], sidecar: SidecarSettings, settings: InjectionSettings
) -> Environment:
    """What the program of `sidecar` is given by one that starts it itself, as far as the author leaves it."""
    own = {each["name"] for each in container.get("env") or []}
    literal = literal_environment(container)
    # What is not to be seen from here is there all the same.
    base = {**{name: f"$({name})" for name in own}, **literal}
    unseen = bool(container.get("envFrom"))
    if unseen:
        base |= {name: f"$({name})" for name in _MODELS if name not in own}
    wanted = environment(
        base, _node(sidecar, settings), Path(settings.identity_directory), settings.trust_domain
    )
    entries: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for name, value in wanted.items():
        if base.get(name) == value:
            continue
        if name in own and not (name in literal and name in _EXTENDED):
            problems.append(_kept(container["name"], name, value))
        elif name in own or not _contradicted(name, own, literal, wanted):
            entries.append(_entry(name, value))
    if unseen:
        problems.append(_unseen(container["name"]))
    return Environment(tuple(sorted(entries, key=_order)), tuple(problems))


def _contradicted(
    name: str, own: Collection[str], literal: Mapping[str, str], wanted: Mapping[str, str]
) -> bool:
    """Whether the author set the twin of `name` in a way that `name` would contradict."""
    twin = _TWINS.get(name)
    if twin is None or twin not in own:
        return False
    return twin not in literal or (twin not in _EXTENDED and literal[twin] != wanted[name])


def _node(sidecar: SidecarSettings, settings: InjectionSettings) -> Node:
    """The node that the sidecar will be, under a name that is put in later."""
    assert sidecar.type is not None and sidecar.agent_port is not None, "it was given both"  # noqa: S101, PT018
    inbound = Inbound(
        sidecar.type,
        Address(sidecar.bind_host, settings.inbound_port),
        Address(LOOPBACK, sidecar.agent_port),
        sidecar.protocol,
        sidecar.capabilities,
        sidecar.version,
    )
    return Node(
        _INSTANCE,
        Address(LOOPBACK, settings.outbound_port),
        inbound,
        trace_sampling=sidecar.trace_sampling,
    )


def _entry(name: str, value: str) -> dict[str, Any]:
    if name == INSTANCE_VARIABLE:
        return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}
    return {"name": name, "value": value.replace(_INSTANCE, f"$({INSTANCE_VARIABLE})")}


def _order(entry: Mapping[str, Any]) -> bool:
    """The pod's name first: others refer to it, and only to what stands before them."""
    return bool(entry["name"] != INSTANCE_VARIABLE)


def _kept(container: str, name: str, value: str) -> Problem:
    wanted = "the pod's name" if name == INSTANCE_VARIABLE else repr(value.replace(_INSTANCE, "<pod>"))
    return warning(
        "VariableKept",
        f"container {container!r} sets {name} itself, and keeps it: the mesh would have set it to {wanted}; "
        f"leave it out if the agent is to use the mesh by it",
    )


def _unseen(container: str) -> Problem:
    return warning(
        "VariablesUnseen",
        f"container {container!r} takes variables from elsewhere (envFrom), which are not looked at: "
        f"those of the mesh come before them, but for {' and '.join(_MODELS)}, which are left out; to use "
        f"the mesh's models set OPENAI_BASE_URL to $({LLM_VARIABLE}) and OPENAI_API_KEY to any text",
    )


@dataclass(frozen=True, slots=True)
class AgentProbes:
    """The agent's probes, as the sidecar makes them for the kubelet."""

    paths: Mapping[str, str]
    """What the sidecar asks for, by the probe's name; empty: a connection is enough."""
    rewritten: Mapping[str, dict[str, Any]]
    """By the field of the container."""
    problems: tuple[Problem, ...]


def agent_probes(container: Mapping[str, Any], agent: AgentInPod, settings: InjectionSettings) -> AgentProbes:
    """Have the sidecar ask in the kubelet's place: many agents listen on loopback only."""
    paths: dict[str, str] = {}
    rewritten: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for field, name in PROBES.items():
        probe = container.get(field)
        if not isinstance(probe, dict) or not _asks(probe, container, agent.port):
            continue
        if probe.get("grpc") or (probe.get("httpGet") or {}).get("httpHeaders"):
            problems.append(_left(container["name"], field))
            continue
        paths[name] = _path(probe)
        rewritten[field] = _through_sidecar(probe, name, settings)
    return AgentProbes(paths, rewritten, tuple(problems))


def _asks(probe: Mapping[str, Any], container: Mapping[str, Any], port: int) -> bool:
    """Whether a probe asks the agent's port in plain text, at the pod's own address."""
    for how in ("httpGet", "tcpSocket", "grpc"):
        action = probe.get(how)
        if isinstance(action, dict):
            plain = action.get("scheme", "HTTP") == "HTTP" and not action.get("host")
            return plain and bool(_port(action.get("port"), container) == port)
    return False


def _port(port: Any, container: Mapping[str, Any]) -> Any:
    if not isinstance(port, str):
        return port
    named = {each.get("name"): each.get("containerPort") for each in container.get("ports") or []}
    return int(port) if port.isdecimal() else named.get(port)


def _path(probe: Mapping[str, Any]) -> str:
    if "httpGet" not in probe:
        return ""
    path = str(probe["httpGet"].get("path") or "/")
    return path if path.startswith("/") else f"/{path}"


def _through_sidecar(probe: Mapping[str, Any], name: str, settings: InjectionSettings) -> dict[str, Any]:
    times = {key: deepcopy(value) for key, value in probe.items() if key not in ("httpGet", "tcpSocket")}
    return {
        "httpGet": {"path": f"{PROBES_PATH}{name}", "port": settings.metrics_port, "scheme": "HTTP"},
        **times,
    }


def _left(container: str, field: str) -> Problem:
    return warning(
        "ProbeKept",
        f"the {field} of container {container!r} asks by gRPC, or with headers of its own, and is left to "
        f"the kubelet: have the agent listen at the pod's address, too, or use a plain httpGet",
    )


def waits_for_drain(settings: InjectionSettings) -> dict[str, Any]:
    """The hook by which the kubelet lets the agent run until the calls in flight have ended."""
    return {"httpGet": {"path": DRAINED_PATH, "port": settings.metrics_port, "scheme": "HTTP"}}


def mesh_mentions(container: Mapping[str, Any]) -> Iterator[str]:
    """Where a container speaks of hosts of the mesh."""
    texts = [("command", each) for each in container.get("command") or []]
    texts += [("args", each) for each in container.get("args") or []]
    texts += [(f"env {name}", value) for name, value in literal_environment(container).items()]
    yield from (where for where, text in texts if ".mesh" in str(text))
