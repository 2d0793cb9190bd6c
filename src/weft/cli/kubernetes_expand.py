"""`weft kubernetes expand`: the manifests that AgentDeployments stand for."""

from __future__ import annotations

from weft.cli.kubernetes import ManifestForm, ManifestFormOption
from weft.cli.manifests import read_manifests
from weft.cli.options import FileOption
from weft.cli.show import print_json
from weft.kubernetes import manifest_text
from weft.kubernetes.agent_manifests import expanded


def expand(*, file: FileOption = (), output: ManifestFormOption = ManifestForm.YAML) -> None:
    """Write what AgentDeployments stand for: ServiceAccount, Service, Deployment, autoscaler and so on.

    Everything else is written as it was, but for its comments. There are no sidecars in it yet:
    `weft kubernetes expand -f agents.yaml | weft inject -f - | kubectl apply -f -`.
    """
    manifests = read_manifests(file)
    with manifests.located():
        documents = manifest_text.read_manifests(manifests.text, manifests.name)
    made = [one for each in documents for one in expanded(each, manifests.name)]
    if output is ManifestForm.JSON:
        print_json({"apiVersion": "v1", "kind": "List", "items": made})
    else:
        print(manifest_text.write_manifests(made), end="")
