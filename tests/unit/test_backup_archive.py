"""A backup's file: read as it was written, and refused where a bit of it is not as it was."""

from __future__ import annotations

import io
import tarfile

import pytest

from weft.errors import InvalidRequest
from weft.store.backup_archive import MAX_PIECE_BYTES, BackupWriter, StreamBegins, StreamEnds, read_backup

ABOUT = {"config": {"name": "first"}, "state": {"messages": 2}}


def written(*, complete: bool = True) -> bytes:
    file = io.BytesIO()
    writer = BackupWriter(file)
    writer.begin("first", ABOUT)
    writer.piece(b"a" * 1000)
    writer.piece(b"b" * 1000)
    writer.end()
    writer.begin("second", {})
    writer.end()
    if complete:
        writer.complete()
    return file.getvalue()


def archive(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w|") as tar:
        for name, data in members:
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    return file.getvalue()


def test_it_is_read_as_it_was_written() -> None:
    assert [*read_backup(io.BytesIO(written()))] == [
        StreamBegins("first", ABOUT),
        b"a" * 1000,
        b"b" * 1000,
        StreamEnds(),
        StreamBegins("second", {}),
        StreamEnds(),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"no tar" * 200,
        written(complete=False),
        written()[: written().index(b"first/end.json")],
        written()[: written().index(b"b" * 1000) + 500],
        written().replace(b"b" * 1000, b"b" * 999 + b"c"),
        written().replace(b"first/000001", b"first/000002"),
        written().replace(b'"streams": 2', b'"streams": 3'),
        archive(("../first/stream.json", b"{}")),
        archive(("first/stream.json", b"[]")),
        archive(("first/stream.json", b"{}"), ("first/000000", b"a" * (MAX_PIECE_BYTES + 1))),
        archive(("complete.json", b"{}")),
    ],
)
def test_what_is_cut_off_changed_or_something_else_is_refused(broken: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the backup cannot be read: it is no backup of Weft, or a part"):
        [*read_backup(io.BytesIO(broken))]
