"""`weft kubernetes`: what a cluster needs, as manifests on standard output.

No cluster is asked but by `bootstrap`, which runs in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

from cyclopts import App, Parameter

from weft.cli.show import print_json
from weft.kubernetes.custom_resources import custom_resource_definitions
from weft.model.yaml_tree import dump

app = App(
    name="kubernetes", help="Write the manifests that a Kubernetes cluster needs, and make its first keys."
)
app.command("weft.cli.kubernetes_render:render", name="render")
app.command("weft.cli.kubernetes_expand:expand", name="expand")
app.command("weft.cli.kubernetes_bootstrap:bootstrap", name="bootstrap")
app.command("weft.cli.kubernetes_nats:nats", name="nats")
app.command("weft.cli.kubernetes_publish_roots:publish", name="publish-roots")
app.command("weft.cli.kubernetes_backup:backup", name="backup")
app.command("weft.cli.kubernetes_backup:restore", name="restore")
app.command("weft.cli.kubernetes_webhook:webhook", name="webhook")
app.command("weft.cli.kubernetes_controller:controller", name="controller")


class ManifestForm(StrEnum):
    """How manifests are written."""

    YAML = "yaml"
    JSON = "json"
    """One object of kind List."""


ManifestFormOption = Annotated[
    ManifestForm, Parameter(name=["--output", "-o"], help="How to write them; as JSON, it is one List.")
]


@app.command
def crds(*, output: ManifestFormOption = ManifestForm.YAML) -> None:
    """Write the definitions of Weft's custom resources: `weft kubernetes crds | kubectl apply -f -`."""
    print_manifests(custom_resource_definitions(), output)


def print_manifests(manifests: Sequence[dict[str, Any]], form: ManifestForm) -> None:
    """Print manifests as `kubectl apply -f -` reads them."""
    if form is ManifestForm.JSON:
        print_json({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
    else:
        print(dump(list(manifests)), end="")
