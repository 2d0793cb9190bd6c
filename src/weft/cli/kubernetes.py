"""`weft kubernetes`: what a cluster needs, as manifests on standard output, and what runs in its pods."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

from cyclopts import App, Parameter

from weft.cli.show import print_json
from weft.kubernetes.custom_resources import custom_resource_definitions
from weft.model.yaml_tree import dump

_HELP = """Write the manifests that a Kubernetes cluster needs; run the parts that are its pods.

`render` writes an installation, `crds` its definitions, `expand` what AgentDeployments stand for. `backup`
saves all that NATS keeps, `restore` puts it into an empty NATS.

In the pods of an installation: `bootstrap` makes the first keys, once; `nats` runs one of the NATS servers;
`publish-roots` puts the mesh's roots where pods find them; `controller` keeps custom resources and the mesh
the same; `webhook` puts sidecars into pods, and checks custom resources.
"""
_IN_PODS = "In the pods of an installation"

app = App(name="kubernetes", help=_HELP, help_format="markdown")
app.command("weft.cli.kubernetes_render:render", name="render")
app.command("weft.cli.kubernetes_expand:expand", name="expand")
app.command("weft.cli.kubernetes_backup:backup", name="backup")
app.command("weft.cli.kubernetes_backup:restore", name="restore")
app.command("weft.cli.kubernetes_bootstrap:bootstrap", name="bootstrap", group=_IN_PODS)
app.command("weft.cli.kubernetes_nats:nats", name="nats", group=_IN_PODS)
app.command("weft.cli.kubernetes_publish_roots:publish", name="publish-roots", group=_IN_PODS)
app.command("weft.cli.kubernetes_webhook:webhook", name="webhook", group=_IN_PODS)
app.command("weft.cli.kubernetes_controller:controller", name="controller", group=_IN_PODS)


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
