"""API keys: what callers outside the mesh show to a gateway.

What the mesh keeps of a key is an ApiKey, under the key's SHA-256: a key has 190 random bits, so nothing is
gained by a slower hash, and whoever reads the store learns none.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError

from weft.errors import InvalidRequest
from weft.model.gateway import Rate
from weft.model.names import check_name
from weft.model.spec import MAX_ITEMS, Name, Spec, TypeName

MAX_KEY_LENGTH = 128
"""Characters of a key."""

_PREFIX = "wk"  # lets scanners of source code and logs find keys that leaked
_SECRET_LENGTH = 32
_ALPHABET = string.ascii_letters + string.digits
_KEY = re.compile(rf"{_PREFIX}_([a-z0-9-]{{1,63}})_[A-Za-z0-9]{{{_SECRET_LENGTH}}}")

_Names = Annotated[tuple[Name, ...], Field(max_length=MAX_ITEMS)]
_Types = Annotated[tuple[TypeName, ...], Field(max_length=MAX_ITEMS)]
_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]


# A field that this version does not know may be a restriction: such a key is not taken, rather than taken for
# one without it. So unknown fields are refused here as they are in resources.
class ApiKey(Spec):
    """What is known of a key: all but the key. Times are in seconds since 1970."""

    name: Name
    """Who calls; stands in the key too, and in the tasks that it submits."""
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """Of the key, in hex."""
    rate: Rate | None = None
    """How much it may ask for; None: what its gateway says."""
    queues: _Names | None = None
    """Queues that it may use; None: all that its gateway offers."""
    agents: _Types | None = None
    """Agent types that it may call; None: all that its gateway offers."""
    topics: _Names | None = None
    """Topics to which it may publish; None: all that its gateway offers."""
    sees_all: bool = False
    """Whether it sees and cancels the tasks of others too, in the queues that it may use."""
    created_at: _Time
    expires_at: _Time | None = None
    """When it is good no more; None: never."""

    def to_json(self) -> bytes:
        """This record as JSON."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ApiKey:
        """The record in `data`. Raises ValueError if it holds none, or one with fields unknown here."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise ValueError("not the record of an API key, or one with fields unknown here") from error


class ApiKeyCodec:
    """The records of keys as a bucket keeps them."""

    def encode(self, value: ApiKey) -> bytes:
        """Return the JSON of `value`."""
        return value.to_json()

    def decode(self, data: bytes) -> ApiKey:
        """Return the record in `data`; raise ValueError if it holds none."""
        return ApiKey.from_json(data)


def new_api_key(name: str) -> str:
    """A key of `name` that nobody has seen. Raises InvalidRequest if that is no name."""
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
    return f"{_PREFIX}_{check_name(name, 'key')}_{secret}"


def is_api_key(text: str) -> bool:
    """Whether `text` has the form of a key."""
    return len(text) <= MAX_KEY_LENGTH and _KEY.fullmatch(text) is not None


def api_key_hash(key: str) -> str:
    """What stands for `key` in the store: its SHA-256, in hex. Raises InvalidRequest if it is no key."""
    if not is_api_key(key):
        raise InvalidRequest("this is not an API key")
    return hashlib.sha256(key.encode()).hexdigest()
