"""The values of Secrets: sealed as they are applied, opened for the sidecars that may use them."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime

from weft.controlplane.sealing import SealBroken, Sealer
from weft.errors import FieldProblem, InvalidResource
from weft.model.manifest import Document
from weft.model.resource import AnyResource
from weft.model.secret import Given, Kept, Reference, Sealed, SecretSpec, SecretValue

logger = logging.getLogger(__name__)

_HEADER_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


class Secrets:
    """Seals and opens the values of Secrets. It is the Preparation of the resources' store."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def __call__(self, document: Document, stored: AnyResource | None) -> AnyResource:
        """The resource of `document` as it is to be stored: every value sealed.

        A value that is applied again stays as it was sealed. Raises InvalidResource for a value to be kept
        that is not there, or that cannot be a header though it is injected as one.
        """
        resource = document.resource
        if not isinstance(resource.spec, SecretSpec):
            return resource
        before = stored.spec.data if stored is not None else {}
        name = resource.metadata.name
        data: dict[str, SecretValue] = {}
        problems: list[FieldProblem] = []
        for key, value in resource.spec.data.items():
            sealed = self._sealed(name, key, value, before.get(key))
            if sealed is None:
                problems.append(document.problem(_missing(value), ("spec", "data", key)))
            else:
                data[key] = sealed
        problems += self._no_headers(document, resource.spec, data)
        if problems:
            raise InvalidResource(problems)
        return resource.model_copy(update={"spec": resource.spec.model_copy(update={"data": data})})

    def value(self, secret: AnyResource, key: str) -> str | None:
        """The value of `key`, text of any characters; None, and a line in the log, if it cannot be opened."""
        value = secret.spec.data.get(key)
        try:
            return (
                self._open(secret.metadata.name, key, value).decode() if isinstance(value, Sealed) else None
            )
        except (SealBroken, UnicodeDecodeError) as error:
            reason = error.detail if isinstance(error, SealBroken) else "it is no text"
            # No traceback: an error's own text could tell of the value.
            logger.error("Secret %r cannot be used: %s", secret.metadata.name, reason)  # noqa: TRY400
            return None

    def _sealed(self, name: str, key: str, value: SecretValue, before: SecretValue | None) -> Sealed | None:
        if isinstance(value, Sealed):
            return value
        if isinstance(value, Kept):
            return before if isinstance(before, Sealed) else None
        if isinstance(value, Reference):
            return None
        if isinstance(before, Sealed) and self._is(name, key, before, value):
            return before
        data = value.text.encode()
        box = base64.b64encode(self._sealer.seal(data, context=_context(name, key))).decode()
        changed = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return Sealed(box, len(data), changed)

    def _is(self, name: str, key: str, sealed: Sealed, given: Given) -> bool:
        """Whether a sealed value is the one given, and sealed with the present key."""
        try:
            same = hmac.compare_digest(self._open(name, key, sealed), given.text.encode())
        except SealBroken:
            return False
        return same and self._sealer.is_current(_unpacked(sealed, name))

    def _open(self, name: str, key: str, sealed: Sealed) -> bytes:
        return self._sealer.open(_unpacked(sealed, name), context=_context(name, key))

    def _no_headers(
        self, document: Document, spec: SecretSpec, data: dict[str, SecretValue]
    ) -> Iterator[FieldProblem]:
        for key in {each.key for each in spec.inject} & data.keys():
            sealed = data[key]
            try:
                opened = (
                    self._open(document.resource.metadata.name, key, sealed)
                    if isinstance(sealed, Sealed)
                    else b""
                )
            except SealBroken as error:
                yield document.problem(
                    f"cannot be kept, so give its value: {error.detail}", ("spec", "data", key)
                )
                continue
            if not _HEADER_VALUE.fullmatch(opened):
                message = "is injected as a header, but has a character (a line break?) that none can have"
                yield document.problem(message, ("spec", "data", key))


def _missing(value: SecretValue) -> str:
    if isinstance(value, Reference):
        return (
            f"{value.source} is read where 'weft apply', 'weft diff' or 'weft up' runs: here is only the name"
        )
    return "there is no value stored that could be kept: give its value"


def _context(name: str, key: str) -> str:
    return f"secret {name}/{key}"


def _unpacked(sealed: Sealed, name: str) -> bytes:
    try:
        return base64.b64decode(sealed.box, validate=True)
    except binascii.Error:
        raise SealBroken(f"a sealed value of Secret {name!r} is damaged") from None
