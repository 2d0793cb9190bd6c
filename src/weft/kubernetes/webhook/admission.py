"""What an API server asks a webhook, and what it is answered: AdmissionReview of admission.k8s.io/v1."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from weft.errors import InvalidRequest
from weft.kubernetes.webhook.json_patch import Operation

API_VERSION: Final = "admission.k8s.io/v1"

MAX_REVIEW_BYTES: Final = 8 * 1024 * 1024
"""Of a question: an API server takes objects of 3 MiB, and sends an update with what was there before."""

_MAX_WARNINGS: Final = 32
_MAX_CAUSES: Final = 32
_MAX_WARNING: Final = 1000
_MAX_MESSAGE: Final = 8000

_Word = Annotated[str, StringConstraints(max_length=1024)]


class Operated(StrEnum):
    """What is to be done with the object."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CONNECT = "CONNECT"


class _Asked(BaseModel):
    """What is not read here is passed over: later API servers may say more."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="ignore")


class ObjectKind(_Asked):
    """Which kind of object it is."""

    group: _Word = ""
    version: _Word
    kind: _Word


class AdmissionRequest(_Asked):
    """The question."""

    uid: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    kind: ObjectKind
    operation: Operated
    name: _Word = ""
    """Empty where the API server makes one up."""
    namespace: _Word = ""
    object: dict[str, Any] | None = None
    """As it will be."""
    old_object: dict[str, Any] | None = None
    """As it is; none where it is created."""


class _Review(_Asked):
    api_version: Literal["admission.k8s.io/v1"]
    kind: Literal["AdmissionReview"]
    request: AdmissionRequest


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing on whose account an object is refused."""

    reason: str
    """In one word, CamelCase."""
    message: str
    """What is wrong with what, and what to do."""
    field: str = ""
    """Path of the field; empty where the object as a whole is wrong."""

    def __str__(self) -> str:
        return f"{self.field or self.reason}: {self.message}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer: whether the object is taken, how it is changed before, and what its author is told."""

    patch: list[Operation] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()
    """Why it is refused; none: it is not."""

    @property
    def allowed(self) -> bool:
        """Whether it is taken."""
        return not self.causes


def read_review(content: bytes) -> AdmissionRequest:
    """The question in an AdmissionReview. Raises InvalidRequest."""
    try:
        return _Review.model_validate_json(content).request
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False, include_input=False)
        where = ".".join(map(str, first["loc"])) or "it"
        raise InvalidRequest(f"no AdmissionReview of {API_VERSION}: {where}: {first['msg']}") from error


def write_review(request: AdmissionRequest, verdict: Verdict) -> dict[str, Any]:
    """The AdmissionReview that answers `request`, as JSON types."""
    response: dict[str, Any] = {"uid": request.uid, "allowed": verdict.allowed}
    if verdict.warnings:
        response["warnings"] = [_shortened(each, _MAX_WARNING) for each in verdict.warnings[:_MAX_WARNINGS]]
    if not verdict.allowed:
        response["status"] = _status(request, verdict)
    elif verdict.patch:
        patch = json.dumps(verdict.patch, separators=(",", ":")).encode()
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch).decode()}
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}


def _status(request: AdmissionRequest, verdict: Verdict) -> dict[str, Any]:
    """What whoever created the object is told: meta/v1 Status."""
    # kubectl shows the causes, and where there are any nothing else.
    causes = [
        {"reason": each.reason, "message": _shortened(each.message, _MAX_MESSAGE), "field": each.field}
        for each in verdict.causes[:_MAX_CAUSES]
    ]
    message = "; ".join(str(each) for each in verdict.causes[:_MAX_CAUSES])
    kind = {"group": request.kind.group, "kind": request.kind.kind, "name": request.name}
    return {
        "code": 422,
        "reason": "Invalid",
        "message": _shortened(message, _MAX_MESSAGE),
        "details": {**kind, "causes": causes},
    }


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
