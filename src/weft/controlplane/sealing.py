"""Sealing what must not be read at rest: private keys, secrets. AES-256-GCM, under a key kept elsewhere.

A sealed value is a header (`weft1`, and the sealing key's id of 8 bytes), a nonce of 12 bytes, and the
ciphertext. Header and context are authenticated along: a value sealed as one thing cannot be passed off as
another.

The sealing keys come from a *source*, `<scheme>:<rest>`:

| source | the keys are |
|---|---|
| `file:/path` | in that file, which only its owner may read |
| `env:NAME` | in that environment variable |
| `exec:/path/to/program` | what that program prints, run without arguments |

One key or several, a line each: 32 random bytes in base64 (`head -c 32 /dev/urandom | base64`). The first
one seals, all open. To change the key: add the new one behind on every replica of the control plane, then
move it to the front, and take out the old one once everything has been sealed anew.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import select
import stat
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from weft.errors import InvalidRequest, MeshError

KEY_BYTES = 32
MAX_KEYS = 16
MAX_SOURCE_BYTES = 4096
"""A source that gives more holds no sealing keys."""
PROGRAM_TIMEOUT = 10.0
"""Seconds a program has to print the keys."""

_MAGIC = b"weft1"
_ID_BYTES = 8
_NONCE_BYTES = 12
_TAG_BYTES = 16
_HEADER_BYTES = len(_MAGIC) + _ID_BYTES

Source = Callable[[str], bytes]
"""Reads sealing keys: takes what stands behind the scheme, raises InvalidRequest if it cannot."""


class SealBroken(MeshError):
    """A sealed value cannot be opened: it is damaged, of another context, or its sealing key is not here."""


class Sealer:
    """Seals and opens, with one or more keys of KEY_BYTES. The first key seals, all open."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        """Raises InvalidRequest where a key is not of KEY_BYTES, or there is none."""
        keys = tuple(keys)
        if not 0 < len(keys) <= MAX_KEYS or any(len(key) != KEY_BYTES for key in keys):
            raise InvalidRequest(f"sealing needs 1 to {MAX_KEYS} keys of {KEY_BYTES} bytes each")
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self._first = _key_id(keys[0])

    @property
    def key_id(self) -> str:
        """The id of the key that seals, in hexadecimal digits. It tells nothing of the key."""
        return self._first.hex()

    def seal(self, data: bytes, *, context: str) -> bytes:
        """`data` sealed as `context`, which says what it is: "secret openai", "authority: root key"."""
        header = _MAGIC + self._first
        nonce = os.urandom(_NONCE_BYTES)
        return header + nonce + self._ciphers[self._first].encrypt(nonce, data, header + context.encode())

    def open(self, sealed: bytes, *, context: str) -> bytes:
        """What was sealed as `context`. Raises SealBroken."""
        header, rest = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:]
        if not header.startswith(_MAGIC) or len(rest) < _NONCE_BYTES + _TAG_BYTES:
            raise SealBroken(f"the sealed value of {context!r} is damaged: it is not of the form Weft seals")
        cipher = self._ciphers.get(header[len(_MAGIC) :])
        if cipher is None:
            raise SealBroken(
                f"{context!r} is sealed with the key {header[len(_MAGIC) :].hex()}, which is not configured; "
                "add it behind the present one"
            )
        try:
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], header + context.encode())
        except InvalidTag:
            raise SealBroken(
                f"the sealed value of {context!r} is damaged, or was sealed as another"
            ) from None

    def is_current(self, sealed: bytes) -> bool:
        """Whether `sealed` is sealed with the first key, so that it need not be sealed anew."""
        return sealed.startswith(_MAGIC + self._first)


def new_sealing_key() -> str:
    """A new sealing key, as the line that a source gives."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def make_key_file(path: Path) -> None:
    """Make `path` a source with a new sealing key, readable by its owner only. Raises FileExistsError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(new_sealing_key() + "\n")
        file.flush()
        os.fsync(descriptor)


def sealer_from(source: str) -> Sealer:
    """A sealer with the keys that `source` gives. Raises InvalidRequest, which never repeats what it read."""
    if not source:
        raise InvalidRequest(
            "what keys and Secrets are sealed with in NATS was not given: name it with --sealing-key or "
            "WEFT_CONTROL_SEALING_KEY, as in file:/path (32 random bytes in base64)"
        )
    scheme, colon, rest = source.partition(":")
    read = _sources.get(scheme)
    if not colon or read is None:
        known = ", ".join(f"{each}:" for each in sorted(_sources))
        raise InvalidRequest(f"a source of sealing keys begins with one of {known}")
    if not rest:
        raise InvalidRequest(f"the source of sealing keys {source!r} says nothing behind {scheme}:")
    return Sealer(_keys(read(rest), source))


def add_source(scheme: str, read: Source) -> None:
    """Have `sealer_from` understand sources that begin with `scheme:`."""
    _sources[scheme] = read


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:_ID_BYTES]


def _keys(text: bytes, source: str) -> list[bytes]:
    if len(text) > MAX_SOURCE_BYTES:
        raise InvalidRequest(
            f"the source {source!r} gives more than {MAX_SOURCE_BYTES} bytes: these are no keys"
        )
    try:
        keys = [base64.b64decode(line, validate=True) for line in text.split()]
    except binascii.Error:
        keys = []
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise InvalidRequest(
            f"the source {source!r} gives no sealing keys: one a line, each {KEY_BYTES} random bytes in "
            f"base64; make one with: head -c {KEY_BYTES} /dev/urandom | base64"
        )
    return keys


def _from_file(path: str) -> bytes:
    try:
        # Without waiting for a writer, should it be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "not a path"
        raise InvalidRequest(f"cannot read the sealing keys in {path}: {why}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidRequest(f"cannot read the sealing keys in {path}: not a regular file")
        if status.st_mode & 0o077:
            raise InvalidRequest(f"others can read the sealing keys in {path}: chmod 600 {path}")
        return file.read(MAX_SOURCE_BYTES + 1)


def _from_environment(name: str) -> bytes:
    value = os.environ.get(name)
    if value is None:
        raise InvalidRequest(
            f"the environment variable {name}, which is to hold the sealing keys, is not set"
        )
    return value.encode()


def _from_program(path: str) -> bytes:
    if not Path(path).is_absolute():
        raise InvalidRequest(f"the program that prints the sealing keys, {path!r}, needs its whole path")
    deadline = time.monotonic() + PROGRAM_TIMEOUT
    try:
        process = subprocess.Popen([path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    except (OSError, ValueError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "not a path"
        raise InvalidRequest(f"cannot run {path}, which is to print the sealing keys: {why}") from None
    with process:
        try:
            output = _printed(process, deadline)
            if len(output) > MAX_SOURCE_BYTES:
                return output  # which is refused; the program is not waited for
            status = process.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise InvalidRequest(
                f"{path}, which is to print the sealing keys, was not done within {PROGRAM_TIMEOUT:g} s"
            ) from None
        finally:
            process.kill()
    if status != 0:
        raise InvalidRequest(f"{path}, which is to print the sealing keys, ended with the status {status}")
    return output


def _printed(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """What `process` prints until it closes its output, or has printed too much. Raises TimeoutError."""
    assert process.stdout is not None  # noqa: S101 -- it was started with a pipe
    output = b""
    while len(output) <= MAX_SOURCE_BYTES:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        part = os.read(process.stdout.fileno(), MAX_SOURCE_BYTES)
        if not part:
            break
        output += part
    return output


_sources: dict[str, Source] = {
    "file": _from_file,
    "env": _from_environment,
    "exec": _from_program,
}
