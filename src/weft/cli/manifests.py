"""Manifests from files, directories and standard input, as one text that is applied whole."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from weft.cli.secret_values import variables_of, with_secret_values
from weft.errors import FieldProblem, InvalidRequest, InvalidResource

MAX_BYTES = 1024 * 1024
"""Size of all manifests together."""

STANDARD_INPUT = "-"
_SUFFIXES = {".yaml", ".yml", ".json"}
_SEPARATOR = "\n---\n"


@dataclass(frozen=True, slots=True)
class Manifests:
    """Several manifests joined into one."""

    text: str = field(repr=False)
    files: tuple[str, ...]
    first_lines: tuple[int, ...]
    """The line of `text` at which each file begins."""
    variables: frozenset[str] = frozenset()
    """The environment variables from which values of Secrets were taken: no agent is to see them."""

    @property
    def name(self) -> str:
        """What to call it as a whole."""
        return self.files[0] if len(self.files) == 1 else "manifests"

    @contextmanager
    def located(self) -> Iterator[None]:
        """Within the block, give the problems of an InvalidResource the file and line they had at first."""
        try:
            yield
        except InvalidResource as error:
            raise InvalidResource([self._locate(each) for each in error.problems]) from error

    def _locate(self, problem: FieldProblem) -> FieldProblem:
        if not problem.line:
            return problem
        index = max(0, bisect_right(self.first_lines, problem.line) - 1)
        return replace(problem, file=self.files[index], line=problem.line - self.first_lines[index] + 1)


NO_MANIFESTS = Manifests("", ("manifest",), (1,))


def read_manifests(sources: Sequence[str], environ: Mapping[str, str] | None = None) -> Manifests:
    """Read files, directories and `-`.

    With `environ`, values of Secrets that are referred to are put in their place, from there or from files.
    Raises InvalidRequest if there is nothing to read, something cannot be read, or it is more than MAX_BYTES;
    InvalidResource where a value is not there.
    """
    if not sources:
        raise InvalidRequest("give a manifest: -f FILE, -f DIRECTORY, or -f - for standard input")
    names = [name for source in sources for name in _files(source)]
    texts = [_read(name) for name in names]
    variables: frozenset[str] = frozenset()
    if environ is not None:
        named = tuple(zip(names, texts, strict=True))
        variables = frozenset().union(*(variables_of(text) for _, text in named))
        texts = [with_secret_values(text, name, environ) for name, text in named]
    if sum(len(text) for text in texts) > MAX_BYTES:
        raise InvalidRequest(f"the manifests are larger than {MAX_BYTES} bytes together")
    return replace(_join(names, texts), variables=variables)


def _join(names: Sequence[str], texts: Sequence[str]) -> Manifests:
    joined = ""
    first_lines = []
    for text in texts:
        joined += _SEPARATOR if joined else ""
        first_lines.append(joined.count("\n") + 1)
        joined += text
    return Manifests(joined, tuple(names), tuple(first_lines))


def _files(source: str) -> list[str]:
    path = Path(source)
    if source == STANDARD_INPUT or not path.is_dir():
        return [source]
    found = sorted(str(each) for each in path.iterdir() if each.suffix in _SUFFIXES and each.is_file())
    if not found:
        raise InvalidRequest(f"there is no manifest (*.yaml, *.yml, *.json) in the directory {source}")
    return found


def _read(name: str) -> str:
    try:
        if name == STANDARD_INPUT:
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        return content.decode()
    except OSError as error:
        raise InvalidRequest(f"{name} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{name} is not a text in UTF-8: {error}") from error
