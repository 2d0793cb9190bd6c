"""The values of Secrets: sealed as they are applied, opened for the sidecars that may use them."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from weft.controlplane.sealing import SealBroken, Sealer
from weft.errors import FieldProblem, InvalidResource
from weft.model.manifest import Document
from weft.model.resource import AnyResource
from weft.model.secret import Given, Injection, Kept, Reference, Sealed, SecretSpec, SecretValue

logger = logging.getLogger(__name__)

_HEADER_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


class Secrets:
    """Seals and opens the values of Secrets. It is the Preparation of the resources' store."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def __call__(self, document: Document, stored: AnyResource | None) -> AnyResource:
        """The resource of `document` as it is to be stored: every value sealed.

        A value that is applied again stays as it was sealed. Raises InvalidResource for a value to be kept
        that is not there or would go where it did not go before, and for one that cannot be a header though
        it is injected as one.
        """
        resource = document.resource
        if not isinstance(resource.spec, SecretSpec):
            return resource
        before = stored.spec.data if stored is not None else {}
        injected = {each.key for each in resource.spec.inject}
        redirected = _redirected(resource.spec, stored)
        data: dict[str, SecretValue] = {}
        problems: list[FieldProblem] = []
        for key, value in resource.spec.data.items():
            box = _Box(self._sealer, resource.metadata.name, key)
            try:
                _check_way(value, redirected.get(key))
                data[key] = sealed = _sealed(box, value, before.get(key))
                if key in injected:
                    _check_header(box.open(sealed))
            except _Unfit as error:
                problems.append(document.problem(str(error), ("spec", "data", key)))
            except SealBroken as error:
                message = f"cannot be kept, so give its value: {error.detail}"
                problems.append(document.problem(message, ("spec", "data", key)))
        if problems:
            raise InvalidResource(problems)
        return resource.model_copy(update={"spec": resource.spec.model_copy(update={"data": data})})

    def value(self, secret: AnyResource, key: str) -> str | None:
        """The value of `key`, text of any characters; None, and a line in the log, if it cannot be opened."""
        value = secret.spec.data.get(key)
        if not isinstance(value, Sealed):
            return None
        try:
            return _Box(self._sealer, secret.metadata.name, key).open(value).decode()
        except (SealBroken, UnicodeDecodeError) as error:
            reason = error.detail if isinstance(error, SealBroken) else "it is no text"
            # No traceback: an error's own text could tell of the value.
            logger.error("Secret %r cannot be used: %s", secret.metadata.name, reason)  # noqa: TRY400
            return None


class _Unfit(Exception):
    """A value cannot be taken; the text tells why, and never the value."""


@dataclass(frozen=True, slots=True)
class _Box:
    """The place of one value, which cannot be passed off as that of another."""

    sealer: Sealer
    name: str
    """Of the Secret."""
    key: str

    @property
    def _context(self) -> str:
        return f"secret {self.name}/{self.key}"

    def seal(self, data: bytes) -> str:
        return base64.b64encode(self.sealer.seal(data, context=self._context)).decode()

    def open(self, sealed: Sealed) -> bytes:
        """Raises SealBroken."""
        return self.sealer.open(self._bytes(sealed), context=self._context)

    def is_current(self, sealed: Sealed) -> bool:
        """Whether it was sealed with the present key. Raises SealBroken."""
        return self.sealer.is_current(self._bytes(sealed))

    def _bytes(self, sealed: Sealed) -> bytes:
        try:
            return base64.b64decode(sealed.box, validate=True)
        except binascii.Error:
            raise SealBroken(f"the sealed value of {self._context!r} is damaged") from None


def _redirected(spec: SecretSpec, stored: AnyResource | None) -> dict[str, str]:
    """Hosts to which values would go that did not go there before, nor so, by the values' keys.

    Whoever may declare resources could else have a value sent to a host of their own, and read it there.
    """
    known = stored.spec.inject if stored is not None and isinstance(stored.spec, SecretSpec) else ()
    before = {(each.key, _way(each)) for each in known}
    return {each.key: each.host for each in spec.inject if (each.key, _way(each)) not in before}


def _way(injection: Injection) -> tuple[object, ...]:
    return injection.host, injection.port, injection.address, injection.tls, injection.ca


def _sealed(box: _Box, value: SecretValue, before: SecretValue | None) -> Sealed:
    """`value` sealed with the present key, in place of `before`. Raises _Unfit and SealBroken."""
    match value:
        case Sealed():
            return value
        case Reference():
            raise _Unfit(
                f"{value.source} is read where 'weft apply', 'weft diff' or 'weft up' runs, not here"
            )
        case Kept() if isinstance(before, Sealed):
            return before if box.is_current(before) else replace(before, box=box.seal(box.open(before)))
        case Kept():
            raise _Unfit("there is no value stored that could be kept: give its value")
    if isinstance(before, Sealed) and _is(box, before, value):
        return before
    data = value.text.encode()
    changed = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Sealed(box.seal(data), len(data), changed)


def _check_way(value: SecretValue, new_host: str | None) -> None:
    if isinstance(value, Kept) and new_host is not None:
        raise _Unfit(
            f"would go to {new_host}, where it did not go before: give the value, to show that you know it"
        )


def _check_header(value: bytes) -> None:
    if not _HEADER_VALUE.fullmatch(value):
        raise _Unfit("is injected as a header, but has a character (a line break?) that none can have")


def _is(box: _Box, sealed: Sealed, given: Given) -> bool:
    """Whether what is sealed, with the present key, is what was given."""
    try:
        return box.is_current(sealed) and hmac.compare_digest(box.open(sealed), given.text.encode())
    except SealBroken:
        return False
