"""CloudEvents as JSON: what bodies of `application/cloudevents+json` hold."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NoReturn

from weft.errors import InvalidRequest
from weft.model.cloud_event import CloudEvent, canonical, from_attributes

JSON_MEDIA_TYPE = "application/json"


def is_json(media_type: str | None) -> bool:
    """Whether data of that media type is JSON."""
    subtype = (media_type or "").partition(";")[0].strip().lower().partition("/")[2]
    return subtype == "json" or subtype.endswith("+json")


def to_json(event: CloudEvent) -> bytes:
    """The event as a JSON document.

    Data that is JSON stands in it as it is, byte by byte; a text as a text; all else in base64.
    """
    document = json.dumps(event.attributes(), ensure_ascii=False, separators=(",", ":")).encode()
    if event.data is None:
        return document
    return document[:-1] + b"," + _data_member(event.data, event.datacontenttype) + b"}"


def from_json(document: bytes) -> CloudEvent:
    """The event that a JSON document holds. Raises InvalidRequest.

    Data that is there as JSON becomes JSON again, not byte by byte what it was before.
    """
    members = parse_json(document, "the CloudEvent")
    if not isinstance(members, dict):
        raise InvalidRequest("the CloudEvent is no JSON object")
    has_data, data = "data" in members, members.pop("data", None)
    base64_data = members.pop("data_base64", None)
    attributes = {name: _attribute(name, value) for name, value in members.items() if value is not None}
    if base64_data is not None:
        if has_data:
            raise InvalidRequest("the CloudEvent has both data and data_base64")
        return from_attributes(attributes, _decoded(base64_data))
    if not has_data:
        return from_attributes(attributes, None)
    media_type = attributes.setdefault("datacontenttype", JSON_MEDIA_TYPE)
    return from_attributes(attributes, _data(data, media_type))


def parse_json(document: bytes, what: str) -> Any:
    """JSON, strictly: UTF-8, no NaN, no key twice. Raises InvalidRequest, which says that `what` is wrong."""
    try:
        return json.loads(document.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        reason = "too deep" if isinstance(error, RecursionError) else str(error)
        raise InvalidRequest(f"{what} is no JSON: {reason[:200]}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key is there twice")
    return members


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _data_member(data: bytes, media_type: str | None) -> bytes:
    if media_type is None or is_json(media_type):
        if _is_document(data):
            return b'"data":' + data
    elif media_type.lower().startswith("text/"):
        try:
            return b'"data":' + json.dumps(data.decode(), ensure_ascii=False).encode()
        except UnicodeDecodeError:
            pass  # a text in another encoding
    return b'"data_base64":"' + base64.b64encode(data) + b'"'


def _is_document(data: bytes) -> bool:
    try:
        parse_json(data, "data")
    except InvalidRequest:
        return False
    return True


def _data(data: Any, media_type: str) -> bytes | None:
    if is_json(media_type):
        return _encoded(json.dumps(data, ensure_ascii=False, separators=(",", ":")))
    if data is None:
        return None
    if not isinstance(data, str):
        raise InvalidRequest(
            f"the data of the CloudEvent is of type {media_type}: give it as a text, or as data_base64"
        )
    return _encoded(data)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest("the data of the CloudEvent holds half a surrogate pair") from error


def _decoded(data: Any) -> bytes:
    try:
        if isinstance(data, str):
            return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise InvalidRequest("data_base64 of the CloudEvent is not base64")


def _attribute(name: str, value: Any) -> str:
    if isinstance(value, (str, bool, int)):
        return canonical(value)
    raise InvalidRequest(
        f"attribute {name[:40]!r} of the CloudEvent must be a text, an integer, true or false"
    )
