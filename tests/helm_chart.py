"""Helm and Weft's chart, for tests. `make helm` puts Helm where it is looked for."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any

from tests.kubernetes_documents import ROOT, Document
from weft.kubernetes.manifest_text import read_manifests

HELM = ROOT / ".kubernetes-assets" / "helm"
CHART = ROOT / "deploy" / "helm" / "weft"

_LIMIT = 200.0
"""Seconds that Helm may take on a machine that does much else."""


class Refused(Exception):
    """Helm did not do it; the text is what it said."""


def missing() -> str | None:
    """Why Helm cannot be asked here; None if it can."""
    return None if HELM.is_file() else f"{HELM.relative_to(ROOT)} is not there: run `make helm`"


def helm(arguments: Sequence[str], values: Mapping[str, Any] | None = None) -> str:
    """What Helm writes when run with `arguments`, and `values` at its standard input. Raises Refused."""
    with TemporaryDirectory() as directory:
        homes = {f"HELM_{name}_HOME": directory for name in ("CACHE", "CONFIG", "DATA")}
        ended = subprocess.run(
            [str(HELM), *arguments],
            input=json.dumps(values or {}),
            env=_environ() | homes,
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=False,
        )
    if ended.returncode != 0:
        raise Refused(ended.stderr + ended.stdout)
    return ended.stdout


def _environ() -> dict[str, str]:
    """Without what would have Helm ask a cluster, or another namespace."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBECONFIG"))}


def template(
    values: Mapping[str, Any] | None = None,
    *,
    release: str = "weft",
    namespace: str = "weft-system",
    flags: Sequence[str] = (),
) -> list[Document]:
    """The documents that the chart renders; without definitions of custom resources. Raises Refused."""
    text = helm(["template", release, str(CHART), "--namespace", namespace, "--values", "-", *flags], values)
    return [each for each in read_manifests(text, "helm template") if each is not None]


def lint(values: Mapping[str, Any] | None = None) -> str:
    """What `helm lint --strict` says of the chart with `values`. Raises Refused."""
    return helm(["lint", "--strict", str(CHART), "--values", "-"], values)


def by_identity(documents: Iterable[Document]) -> dict[str, list[str]]:
    """Each document as lines of JSON, its keys in order, by what a cluster tells documents apart by."""
    found: dict[str, list[str]] = {}
    for each in documents:
        metadata = each["metadata"]
        identity = f"{each['apiVersion']} {each['kind']} {metadata.get('namespace', '')}/{metadata['name']}"
        assert identity not in found, f"{identity} is there twice"
        found[identity] = json.dumps(each, indent=1, sort_keys=True, ensure_ascii=False).splitlines()
    return found
