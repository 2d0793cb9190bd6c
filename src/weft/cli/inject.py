"""`weft inject`: put sidecars into the pods of Kubernetes manifests."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from weft.cli.exit_codes import ExitCode
from weft.cli.injection_options import InjectionOptions
from weft.cli.kubernetes import ManifestForm, ManifestFormOption
from weft.cli.manifests import read_manifests
from weft.cli.options import FileOption
from weft.cli.show import print_json
from weft.kubernetes import manifest_text
from weft.kubernetes.workloads import InjectedDocument, inject_document

_AS_USUAL = InjectionOptions()


def inject(
    *,
    file: FileOption = (),
    sidecars: InjectionOptions = _AS_USUAL,
    output: ManifestFormOption = ManifestForm.YAML,
) -> int:
    """Put a sidecar into every pod of Kubernetes manifests: `weft inject -f agent.yaml | kubectl apply -f -`.

    All that has no pods is written as it was, but for its comments. What is wrong is told on stderr; where a
    pod cannot have a sidecar nothing is written, and the exit code is 1.
    """
    settings = sidecars.settings()
    manifests = read_manifests(file)
    with manifests.located():
        documents = manifest_text.read_manifests(manifests.text, manifests.name)
    injected = [inject_document(each, settings) for each in documents]
    _tell_problems(injected)
    if any(each.refused for each in injected):
        return ExitCode.FAILED
    written = [each.document for each in injected]
    if output is ManifestForm.JSON:
        print_json({"apiVersion": "v1", "kind": "List", "items": written})
    else:
        print(manifest_text.write_manifests(written), end="")
    return ExitCode.OK


def _tell_problems(injected: Sequence[InjectedDocument]) -> None:
    for document in injected:
        for where, problem in document.problems:
            kind = "refused" if problem.refused else "warning"
            print(f"weft: {where}: {kind}: {problem.reason}: {problem.message}", file=sys.stderr)
