"""Sealing: what is sealed opens with its key and as what it is, or not at all."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from weft.controlplane import sealing
from weft.controlplane.sealing import (
    SealBroken,
    Sealer,
    add_source,
    make_key_file,
    new_sealing_key,
    sealer_from,
)
from weft.errors import InvalidRequest

OLD, NEW = os.urandom(32), os.urandom(32)


def test_what_was_sealed_opens_again_and_shows_nothing_of_itself() -> None:
    sealer = Sealer([OLD])
    sealed = sealer.seal(b"a private key", context="root")
    assert sealer.open(sealed, context="root") == b"a private key"
    assert b"private" not in sealed
    assert sealed != sealer.seal(b"a private key", context="root")
    assert OLD.hex() not in repr(sealer)


def test_a_sealed_value_cannot_be_passed_off_as_another() -> None:
    sealer = Sealer([OLD])
    sealed = sealer.seal(b"password of a", context="secret a")
    with pytest.raises(SealBroken, match="secret b"):
        sealer.open(sealed, context="secret b")


def test_no_bit_of_a_sealed_value_can_be_changed() -> None:
    sealer = Sealer([OLD])
    sealed = sealer.seal(b"x", context="c")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(SealBroken):
            sealer.open(bytes(changed), context="c")
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            sealer.open(sealed[:length], context="c")


def test_the_sealing_key_can_be_changed_for_another() -> None:
    before = Sealer([OLD]).seal(b"x", context="c")
    both = Sealer([NEW, OLD])
    assert both.open(before, context="c") == b"x"
    assert not both.is_current(before)
    after = both.seal(b"x", context="c")
    assert both.is_current(after)
    assert Sealer([NEW]).open(after, context="c") == b"x"
    with pytest.raises(SealBroken, match="which is not configured"):
        Sealer([NEW]).open(before, context="c")


def test_a_file_of_keys_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sealing.key"
    make_key_file(path)
    assert sealer_from(f"file:{path}").key_id
    with pytest.raises(FileExistsError):
        make_key_file(path)
    path.chmod(0o640)
    with pytest.raises(InvalidRequest, match=f"chmod 600 {path}"):
        sealer_from(f"file:{path}")


def test_the_first_of_several_keys_in_a_source_seals(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [base64.b64encode(key).decode() for key in (NEW, OLD)]
    monkeypatch.setenv("WEFT_TEST_SEALING_KEYS", "\n".join(lines))
    sealer = sealer_from("env:WEFT_TEST_SEALING_KEYS")
    assert sealer.key_id == Sealer([NEW]).key_id
    assert sealer.open(Sealer([OLD]).seal(b"x", context="c"), context="c") == b"x"


def test_a_program_can_print_the_key(tmp_path: Path) -> None:
    key = new_sealing_key()
    assert sealer_from(f"exec:{_program(tmp_path, f'echo {key}')}").key_id


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo c2VjcmV0; exit 3", "ended with the status 3"),
        ("cat /dev/zero", "more than 4096 bytes"),
        ("exec sleep 60", "was not done within"),
        ("exec >&-; exec sleep 60", "was not done within"),
        ("echo c2VjcmV0", "gives no sealing keys"),
        ("true", "gives no sealing keys"),
    ],
)
def test_a_program_that_prints_no_key_is_told_of_without_what_it_printed(
    script: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in script:
        monkeypatch.setattr(sealing, "PROGRAM_TIMEOUT", 0.3)
    with pytest.raises(InvalidRequest, match=why) as caught:
        sealer_from(f"exec:{_program(tmp_path, script)}")
    assert "c2VjcmV0" not in str(caught.value)


def test_a_source_that_is_none_is_refused_without_repeating_it(tmp_path: Path) -> None:
    key = new_sealing_key()
    with pytest.raises(InvalidRequest, match="env:, exec:, file:") as caught:
        sealer_from(key)
    assert key not in str(caught.value)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for source in ("env:WEFT_NOT_SET", "file:", f"file:{tmp_path}/none", f"file:{tmp_path}/pipe", "exec:sh"):
        with pytest.raises(InvalidRequest):
            sealer_from(source)


def test_other_sources_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_sources", dict(sealing._sources))
    add_source("vault", lambda path: base64.b64encode(OLD) if path == "weft/key" else b"")
    assert sealer_from("vault:weft/key").key_id == Sealer([OLD]).key_id


def _program(directory: Path, script: str) -> Path:
    path = directory / "keys.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return path
