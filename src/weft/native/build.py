"""Builds the libraries that Weft's Envoys load: `python -m weft.native.build`.

Without a compiler there are none, and Weft works without them; what it then lacks is said in one line.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

DIRECTORY = Path(__file__).parent
SOURCE = "stream_guard.c"
LIBRARIES = "lib"
"""Directory for what is built. Not beside Python's modules: Python would take it for one of them."""
LIBRARY = "libweft-stream-guard.so"
FLAGS = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-fstack-protector-strong",
    # Compilers that define it themselves do so with another number.
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=2",
)
_WITHOUT = "the clients of a streamed answer that breaks off get a broken connection instead of a last event"
_LIMIT = 120.0


def compiler() -> Sequence[str] | None:
    """The command of the C compiler: `$CC`, else `cc`; None if there is none."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    return command if shutil.which(command[0]) else None


def build(directory: Path = DIRECTORY / LIBRARIES) -> Path:
    """Compile the library into `directory`, in place of the one that is there.

    Raises OSError if there is no compiler, or it cannot be started or does not end; RuntimeError, with what
    it said, if it refuses the source.
    """
    command = compiler()
    if command is None:
        raise FileNotFoundError("there is no C compiler: install gcc or clang, or set CC")
    directory.mkdir(exist_ok=True)
    library = directory / LIBRARY
    # Renamed when it is whole: an Envoy that runs may have the old one mapped.
    new = library.with_suffix(f".{os.getpid()}")
    try:
        _compile([*command, *_platform_flags(), *FLAGS, "-o", str(new), str(DIRECTORY / SOURCE)])
        new.replace(library)
    finally:
        new.unlink(missing_ok=True)
    return library


def _platform_flags() -> Sequence[str]:
    if sys.platform == "darwin":
        return ("-bundle", "-undefined", "dynamic_lookup")
    return ("-shared",)


def _compile(command: Sequence[str]) -> None:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=False)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{command[0]} did not end within {_LIMIT:.0f} s") from error
    if ended.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{ended.stderr}")


def main() -> None:
    """Build what can be built here, and say what cannot: that is no failure."""
    try:
        build()
    except (OSError, RuntimeError) as error:
        (DIRECTORY / LIBRARIES / LIBRARY).unlink(missing_ok=True)  # it would be of another source
        print(f"no stream guard: {error}; {_WITHOUT}", file=sys.stderr)


if __name__ == "__main__":
    main()
