"""How an audit record is written down."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from weft.errors import InvalidRequest
from weft.model.audit import AuditRecord, Outcome

MAX_TEXT = 1000
"""Characters of each field; what is longer is cut."""

MAX_DETAILS = 16

_Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]


class _Record(BaseModel):
    # Versions of Weft mix in one mesh: a field that this one does not know is none of its business.
    model_config = ConfigDict(extra="ignore", frozen=True, from_attributes=True, allow_inf_nan=False)

    time: Annotated[float, Field(ge=0)]
    who: _Text
    action: _Text
    target: _Text
    outcome: Outcome
    policy: _Text = ""
    reason: _Text = ""
    observer: _Text = ""
    details: Annotated[dict[_Text, _Text], Field(max_length=MAX_DETAILS)] = {}


class AuditCodec:
    """Audit records as JSON."""

    def encode(self, value: AuditRecord) -> bytes:
        """Return the JSON of `value`, long texts cut. Raises InvalidRequest if it is no record."""
        try:
            return _Record.model_validate(_cut(value)).model_dump_json().encode()
        except ValidationError as error:
            raise InvalidRequest(f"the audit cannot take a record of {value.action[:100]!r}") from error

    def decode(self, data: bytes) -> AuditRecord:
        """Return the record in `data`; raise ValueError if it holds none. Unknown fields are ignored."""
        try:
            record = _Record.model_validate_json(data)
        except ValidationError as error:
            raise ValueError("not an audit record") from error
        return AuditRecord(**dict(record))


def _cut(record: AuditRecord) -> AuditRecord:
    texts = {
        name: getattr(record, name)[:MAX_TEXT]
        for name in ("who", "action", "target", "policy", "reason", "observer")
    }
    some = sorted(record.details.items())[:MAX_DETAILS]
    details = {name[:MAX_TEXT]: value[:MAX_TEXT] for name, value in some}
    return replace(record, **texts, details=details)
