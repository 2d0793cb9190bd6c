"""A backup as a file: a tar with a directory for each stream, in pieces, and a last word that it is whole.

| member | what |
|---|---|
| `<stream>/stream.json` | how the stream is set up, and what was in it |
| `<stream>/000000`, `000001`, … | the snapshot, as NATS gives it |
| `<stream>/end.json` | how many pieces there are, and their SHA-256 together |
| `complete.json` | how many streams there are: without it the file broke off |
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

from weft.errors import InvalidRequest

FORMAT: Final = 1
MAX_PIECE_BYTES: Final = 1024 * 1024
_MAX_ABOUT_BYTES: Final = 1024 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
_BROKEN: Final = "it is no backup of Weft, or a part of it is missing"


@dataclass(frozen=True, slots=True)
class StreamBegins:
    """A stream comes; its pieces follow."""

    name: str
    about: dict[str, Any]
    """What NATS said of it: `config` and `state`."""


@dataclass(frozen=True, slots=True)
class StreamEnds:
    """All pieces of the stream have come, and are those that were written."""


class BackupWriter:
    """Writes a backup. Pieces may be written as they come; nothing is read back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._stream = ""
        self._pieces = 0
        self._streams = 0
        self._digest = hashlib.sha256()

    def begin(self, stream: str, about: dict[str, Any]) -> None:
        """Begin with a stream."""
        self._stream, self._pieces, self._digest = stream, 0, hashlib.sha256()
        self._add(f"{stream}/stream.json", json.dumps(about).encode())

    def piece(self, data: bytes) -> None:
        """Write a piece of it, MAX_PIECE_BYTES at most."""
        self._digest.update(data)
        self._add(f"{self._stream}/{self._pieces:06d}", data)
        self._pieces += 1

    def end(self) -> None:
        """Have done with the stream."""
        end = {"pieces": self._pieces, "sha256": self._digest.hexdigest()}
        self._add(f"{self._stream}/end.json", json.dumps(end).encode())
        self._streams += 1

    def complete(self) -> None:
        """Have done with all streams."""
        self._add("complete.json", json.dumps({"format": FORMAT, "streams": self._streams}).encode())
        self._tar.close()

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o600
        self._tar.addfile(member, io.BytesIO(data))


def read_backup(file: IO[bytes]) -> Iterator[StreamBegins | bytes | StreamEnds]:
    """What is in a backup, in its order; each stream's pieces between its beginning and its end.

    Raises InvalidRequest where it is none, or has been changed or cut off.
    """
    try:
        with tarfile.open(fileobj=file, mode="r|") as tar:
            yield from _read(tar)
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"the backup cannot be read: {_BROKEN} ({error})") from error


def _read(tar: tarfile.TarFile) -> Iterator[StreamBegins | bytes | StreamEnds]:
    streams = 0
    # Not by iterating: what comes is read here and below, each member once.
    while (member := tar.next()) is not None:
        if member.name == "complete.json":
            if json.loads(_content(tar, member, _MAX_ABOUT_BYTES)) != {"format": FORMAT, "streams": streams}:
                raise ValueError("the last word does not fit what came before")
            return
        name, _, part = member.name.partition("/")
        if part != "stream.json" or not _NAME.fullmatch(name):
            raise ValueError(f"{member.name[:64]!r} is out of place")
        yield StreamBegins(name, dict(json.loads(_content(tar, member, _MAX_ABOUT_BYTES))))
        yield from _pieces(tar, name)
        yield StreamEnds()
        streams += 1
    raise ValueError("it breaks off")


def _pieces(tar: tarfile.TarFile, name: str) -> Iterator[bytes]:
    digest, count = hashlib.sha256(), 0
    while (member := tar.next()) is not None:
        if member.name == f"{name}/end.json":
            end = json.loads(_content(tar, member, _MAX_ABOUT_BYTES))
            if end != {"pieces": count, "sha256": digest.hexdigest()}:
                raise ValueError(f"{name} is not what was written")
            return
        if member.name != f"{name}/{count:06d}":
            raise ValueError(f"{member.name[:64]!r} is out of place")
        data = _content(tar, member, MAX_PIECE_BYTES)
        digest.update(data)
        count += 1
        yield data
    raise ValueError(f"{name} breaks off")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    if not member.isreg() or member.size > most:
        raise ValueError(f"{member.name[:64]!r} is no part of a backup, or too large")
    source = tar.extractfile(member)
    data = source.read(most) if source is not None else b""
    if len(data) != member.size:
        raise ValueError(f"{member.name[:64]!r} breaks off")
    return data
