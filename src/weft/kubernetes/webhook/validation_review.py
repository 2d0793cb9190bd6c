"""What is answered when a custom resource is to be created or changed: what its schema cannot say. Pure.

These are the checks of `weft apply` that need nothing but the resource itself. What depends on others is said
by the condition of the resource, for any of them may come or go later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from weft.errors import FieldProblem, InvalidRequest, InvalidResource
from weft.kubernetes.agent_deployment import KIND as AGENT_DEPLOYMENT
from weft.kubernetes.agent_deployment import read_agent_deployment
from weft.kubernetes.agent_manifests import agent_manifests
from weft.kubernetes.custom_resources import API_VERSION, GROUP
from weft.kubernetes.injection_settings import InjectionSettings
from weft.kubernetes.webhook.admission import AdmissionRequest, Cause, Operated, Verdict
from weft.model.contradictions import contradictions
from weft.model.manifest import field_name, parse_resource
from weft.model.resource import KINDS, AnyResource
from weft.model.unchangeable import forbidden_changes

_INVALID: Final = "FieldValueInvalid"
_ELSEWHERE: Final = "(in a Secret of Kubernetes)"
"""Stands for a value that a custom resource only refers to."""

_TAKEN: Final = Verdict()


def review_resource(request: AdmissionRequest, settings: InjectionSettings) -> Verdict:
    """Whether the custom resource of `request` is taken; `settings` are those of sidecars in its pods.

    Raises InvalidRequest if it is about something else.
    """
    document = request.object
    known = request.kind.group == GROUP and request.kind.kind in {*KINDS, AGENT_DEPLOYMENT}
    if not known or document is None or request.operation not in {Operated.CREATE, Operated.UPDATE}:
        raise InvalidRequest(
            f"asked about {request.operation} of {request.kind.kind}.{request.kind.group}: only what is "
            f"declared in {API_VERSION} is checked, and only when it is written"
        )
    if _is_the_same(document, request.old_object):
        return _TAKEN
    if request.kind.kind == AGENT_DEPLOYMENT:
        return _of_deployment(document, settings)
    try:
        resource = _declared(document)
    except InvalidResource as error:
        return Verdict(causes=tuple(map(_cause, error.problems)))
    return Verdict(causes=tuple(_contradictions(resource, request.old_object)))


def _is_the_same(document: Mapping[str, Any], old: Mapping[str, Any] | None) -> bool:
    """Whether nothing is declared anew: what is wrong already must not keep its labels, or its end, away."""
    return old is not None and (
        old.get("spec") == document.get("spec") or _metadata(document).get("deletionTimestamp") is not None
    )


def _of_deployment(document: Mapping[str, Any], settings: InjectionSettings) -> Verdict:
    try:
        manifests = agent_manifests(read_agent_deployment(document), settings)
    except InvalidResource as error:
        return Verdict(causes=tuple(map(_cause, error.problems)))
    return Verdict(
        causes=tuple(Cause(each.reason, each.message) for each in manifests.problems if each.refused),
        warnings=tuple(f"{each.reason}: {each.message}" for each in manifests.problems if not each.refused),
    )


def _declared(document: Mapping[str, Any]) -> AnyResource:
    """The resource of a mesh that a custom resource is to become. Raises InvalidResource."""
    spec = document.get("spec")
    if document.get("kind") == "Secret" and isinstance(spec, dict) and isinstance(spec.get("data"), dict):
        spec = {**spec, "data": dict.fromkeys(spec["data"], _ELSEWHERE)}
    metadata = {"name": _metadata(document).get("name")}
    return parse_resource(
        {"apiVersion": API_VERSION, "kind": document.get("kind"), "metadata": metadata, "spec": spec}
    )


def _metadata(document: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = document.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _contradictions(resource: AnyResource, old: Mapping[str, Any] | None) -> Iterator[Cause]:
    found = list(contradictions(resource))
    if old is not None:
        # Whatever it was that makes no sense, the mesh has never had it.
        with suppress(InvalidResource):
            found += forbidden_changes(_declared(old), resource)
    yield from (Cause(_INVALID, message, field_name(path)) for path, message in found)


def _cause(problem: FieldProblem) -> Cause:
    return Cause(_INVALID, problem.message, problem.field)
