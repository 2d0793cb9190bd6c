"""Sidecars in pods: a pod template in, the same with a sidecar out. Pure.

The sidecar is a native one, an init container that goes on: it is there before the agent, and until after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from weft.kubernetes.agent_container import (
    agent_environment,
    agent_probes,
    mesh_mentions,
    waits_for_drain,
)
from weft.kubernetes.agent_in_pod import PREFIX, AgentInPod, agent_in
from weft.kubernetes.edits import RECORD, Edits, take_back
from weft.kubernetes.injection_settings import USER, InjectionSettings
from weft.kubernetes.pod_shape import check_pod
from weft.kubernetes.problem import Problem, Refusal, warning
from weft.kubernetes.sidecar_container import (
    IDENTITY_VOLUME,
    SIDECAR,
    sidecar_arguments,
    sidecar_container,
    sidecar_volumes,
    understood,
)
from weft.sidecar.settings import SidecarSettings

__all__ = ["Injection", "InjectionSettings", "Problem", "inject"]

INJECT: Final = f"{PREFIX}inject"
"""Annotation: "false" leaves a pod alone."""
INJECTED: Final = f"{PREFIX}injected"
"""Annotation of injected pods: by which version of Weft."""
AGENT_LABEL: Final = f"{PREFIX}agent"
"""Label of injected pods: the agent's type."""

_SCRAPE: Final = "prometheus.io/scrape"
_USUAL_GRACE: Final = 30
_SLACK: Final = 5.0
"""Seconds that a pod takes to end beside the drain and the end of its agent."""

_PROXIES: Final = frozenset({"envoy", "istio-proxy", "linkerd-proxy", "kuma-sidecar", "consul-dataplane"})
_PROXY_IMAGES: Final = ("envoy", "proxyv2", "consul-dataplane", "kuma-dp")
_WINDOWS: Final = "windows"


@dataclass(frozen=True, slots=True)
class Injection:
    """What became of a pod."""

    pod: dict[str, Any]
    """With the sidecar; as it was, if that was left out."""
    problems: tuple[Problem, ...] = ()
    injected: bool = False
    """Whether the sidecar is in it."""

    @property
    def refused(self) -> bool:
        """Whether the sidecar was left out because of a problem."""
        return any(each.refused for each in self.problems)


def inject(pod: dict[str, Any], settings: InjectionSettings) -> Injection:
    """Put a sidecar beside the agent in `pod`: a Pod, or the template of a Deployment and the like.

    `pod` stays as it is. One that has a sidecar already gets the same anew, whatever version that was of. One
    that does not want any (annotation `weft.dev/inject: "false"`) is left alone.
    """
    try:
        check_pod(pod)
        if ((pod.get("metadata") or {}).get("annotations") or {}).get(INJECT) == "false":
            return Injection(pod)
        changed = deepcopy(pod)
        problems = _inject(changed, settings)
    except Refusal as refusal:
        return Injection(pod, (refusal.problem,))
    return Injection(changed, tuple(problems), injected=True)


def _inject(pod: dict[str, Any], settings: InjectionSettings) -> list[Problem]:
    take_back(pod)
    # What a record puts back is as foreign as the pod itself.
    check_pod(pod)
    _check_possible(pod, settings)
    agent = agent_in(pod)
    if agent.port in settings.ports:
        raise _port_taken(agent.container, agent.port)
    container = next(each for each in pod["spec"]["containers"] if each["name"] == agent.container)
    probes = agent_probes(container, agent, settings)
    arguments = sidecar_arguments(agent, probes.paths, settings)
    sidecar = understood(arguments)
    variables = agent_environment(container, sidecar, settings)
    problems = [*probes.problems, *variables.problems, *_init_problems(pod, settings)]
    edits = Edits(pod)
    at = ("spec", "containers", agent.container)
    for variable in reversed(variables.entries):
        edits.put(*at, "env", variable["name"], value=variable)
    for field, probe in probes.rewritten.items():
        edits.put(*at, field, value=probe)
    mount = {"name": IDENTITY_VOLUME, "mountPath": settings.identity_directory, "readOnly": True}
    edits.add(*at, "volumeMounts", IDENTITY_VOLUME, value=mount)
    problems += _end_well(edits, container, agent, settings)
    problems += _give_time(edits, pod, sidecar)
    _share_group(edits, pod)
    for volume in reversed(sidecar_volumes(settings)):
        edits.add("spec", "volumes", volume["name"], value=volume)
    edits.add("spec", "initContainers", SIDECAR, value=sidecar_container(arguments, sidecar, settings))
    _mark(edits, pod, agent, settings)
    edits.record()
    return problems


def _check_possible(pod: Mapping[str, Any], settings: InjectionSettings) -> None:
    """Raise Refusal for a pod in which a sidecar could not work."""
    spec = pod["spec"]
    if INJECTED in ((pod.get("metadata") or {}).get("annotations") or {}):
        raise Refusal(
            "RecordBroken",
            f"annotation {INJECTED} says that there is a sidecar, but {RECORD} is missing, which says what "
            f"was there before: use the manifest as it was before `weft inject`",
        )
    if spec.get("hostNetwork"):
        raise Refusal(
            "HostNetwork",
            "the pod uses its node's network, where all such pods would share the sidecar's ports and "
            f'loopback: remove hostNetwork, or leave the pod out of the mesh by annotation {INJECT}: "false"',
        )
    system = (spec.get("os") or {}).get("name") or (spec.get("nodeSelector") or {}).get("kubernetes.io/os")
    if system == _WINDOWS:
        raise Refusal(
            "WindowsNode",
            "the pod is for nodes with Windows, for which there is no sidecar: run the agent on Linux, or "
            f'leave the pod out of the mesh by annotation {INJECT}: "false"',
        )
    for each in _containers(spec):
        _check_no_proxy(each)
        _check_ports(each, settings)


def _check_no_proxy(container: Mapping[str, Any]) -> None:
    image = str(container.get("image") or "").partition("@")[0].rpartition("/")[2].partition(":")[0]
    if container["name"] in _PROXIES or image.startswith(_PROXY_IMAGES):
        raise Refusal(
            "OtherProxy",
            f"container {container['name']!r} is a proxy of its own ({container.get('image', 'no image')}), "
            "and two would each claim the agent's calls: remove it (of Istio's by label "
            '`sidecar.istio.io/inject: "false"`), or leave the pod out of the mesh by annotation '
            f'{INJECT}: "false"',
        )


def _check_ports(container: Mapping[str, Any], settings: InjectionSettings) -> None:
    for port in container.get("ports") or []:
        if port.get("containerPort") in settings.ports:
            raise _port_taken(container["name"], port["containerPort"])


def _port_taken(container: str, port: int) -> Refusal:
    return Refusal(
        "PortTaken",
        f"container {container!r} uses port {port}, which is the sidecar's in every pod: choose another",
    )


def _containers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from spec.get("initContainers") or []
    yield from spec["containers"]


def _init_problems(pod: Mapping[str, Any], settings: InjectionSettings) -> Iterator[Problem]:
    for each in pod["spec"].get("initContainers") or []:
        where = next(mesh_mentions(each), None)
        names = {variable["name"].upper() for variable in each.get("env") or []}
        if where is not None and "HTTP_PROXY" not in names:
            yield warning(
                "InitContainerOutside",
                f"init container {each['name']!r} speaks of the mesh ({where}), but is not given its way "
                f"there: the sidecar runs before it, so set HTTP_PROXY to http://127.0.0.1:{settings.outbound_port}",
            )


def _end_well(
    edits: Edits, container: Mapping[str, Any], agent: AgentInPod, settings: InjectionSettings
) -> Iterable[Problem]:
    """Let the agent run until the calls in flight have ended."""
    if "preStop" in (container.get("lifecycle") or {}):
        yield warning(
            "HookKept",
            f"container {agent.container!r} has a preStop hook, and keeps it: the agent is stopped when that "
            f"is over, whatever calls it has in flight; have the hook take as long as they need",
        )
        return
    edits.put("spec", "containers", agent.container, "lifecycle", "preStop", value=waits_for_drain(settings))


def _give_time(edits: Edits, pod: Mapping[str, Any], sidecar: SidecarSettings) -> Iterable[Problem]:
    needed = math.ceil(sidecar.drain_grace + sidecar.drain_timeout + sidecar.stop_timeout + _SLACK)
    given = pod["spec"].get("terminationGracePeriodSeconds")
    given = _USUAL_GRACE if given is None else given
    if given >= needed:
        return
    edits.put("spec", "terminationGracePeriodSeconds", value=needed)
    # What is usual an API server writes into every pod: nobody asked for it.
    if given != _USUAL_GRACE:
        yield warning(
            "GracePeriodRaised",
            f"terminationGracePeriodSeconds is raised from {given} to {needed}: calls in flight have "
            f"{sidecar.drain_timeout:g} s to end; set {PREFIX}drain-timeout if they need less",
        )


def _share_group(edits: Edits, pod: Mapping[str, Any]) -> None:
    """Let the agent's container, whoever its user is, read the identity that the sidecar writes."""
    groups = (pod["spec"].get("securityContext") or {}).get("supplementalGroups") or []
    if USER not in groups:
        edits.put("spec", "securityContext", "supplementalGroups", value=[*groups, USER])


def _mark(edits: Edits, pod: Mapping[str, Any], agent: AgentInPod, settings: InjectionSettings) -> None:
    annotations = {INJECTED: version("weft")}
    if _SCRAPE not in ((pod.get("metadata") or {}).get("annotations") or {}):
        annotations |= {
            _SCRAPE: "true",
            "prometheus.io/port": str(settings.metrics_port),
            "prometheus.io/path": "/metrics",
        }
    for name, value in annotations.items():
        edits.put("metadata", "annotations", name, value=value)
    edits.put("metadata", "labels", AGENT_LABEL, value=agent.type)
