"""What no file of the repository may hold."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Put together from parts, so that this file does not hold them either.
_REGISTRIES = ["pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "crates" + ".io"]
_MACHINE_PATHS = ["/" + "work/", "/" + "root/", "/home" + r"/\w+/", "/" + "Users/"]

FORBIDDEN = {
    "the host of a package registry": "|".join(re.escape(each) for each in _REGISTRIES),
    "a path of one machine": rf"(?<![\w.*}}-])(?:{'|'.join(_MACHINE_PATHS)})",
}


def tracked() -> list[Path]:
    """The files that git knows, but for those that are gone from the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True, cwd=ROOT)
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    files = tracked()
    assert len(files) > 100
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in files
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []
