"""The libraries in C: built where there is a compiler, sound in whatever order Envoy calls them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import weft.native
from weft.native.build import DIRECTORY, build, compiler

_FUZZ = Path(__file__).parents[1] / "native" / "guard_fuzz.c"
_SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
_LIMIT = 100.0

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no C compiler")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=False)


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="it replaces realloc by the linker")
def test_the_stream_guard_bears_whatever_envoy_may_do(tmp_path: Path) -> None:
    command, program = compiler(), tmp_path / "fuzz"
    assert command is not None
    wrapped = "-Wl,--wrap=realloc,--wrap=calloc"
    flags = ("-std=c11", "-D_GNU_SOURCE", f"-I{DIRECTORY}", wrapped, *_SANITIZERS)
    built = _run(*command, *flags, "-o", str(program), str(_FUZZ))
    if "san" in built.stderr and "No such file" in built.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    for seed in (1, 2):
        ended = _run(str(program), str(seed), "5000")
        assert ended.returncode == 0, f"seed {seed}: {ended.stderr}"


@needs_compiler
def test_a_source_that_does_not_compile_leaves_the_library_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = build(tmp_path)
    before = library.read_bytes()
    monkeypatch.setenv("CC", "cc -DABI_VERSION=nonsense(")
    with pytest.raises(RuntimeError, match="failed"):
        build(tmp_path)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [before]


def test_without_a_compiler_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert compiler() is None
    with pytest.raises(OSError, match="install gcc or clang, or set CC"):
        build()


@pytest.mark.parametrize(("envoy", "loads"), [("1.40.0", True), ("1.41.0", False), ("", False)])
def test_another_envoy_than_the_one_it_is_for_does_not_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, envoy: str, loads: bool
) -> None:
    library = tmp_path / "library.so"
    library.write_bytes(os.urandom(8))
    monkeypatch.setattr(weft.native, "_LIBRARY", library)
    monkeypatch.setattr(weft.native, "_installed_envoy", lambda: envoy)
    assert weft.native.stream_guard() == (library if loads else None)
