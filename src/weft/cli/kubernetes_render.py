"""`weft kubernetes render`: an installation as plain manifests."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from weft.cli.kubernetes import ManifestForm, ManifestFormOption
from weft.cli.manifests import read_manifests
from weft.cli.show import print_json
from weft.kubernetes.custom_resources import custom_resource_definitions
from weft.kubernetes.first_keys import DEFAULT_NAME
from weft.kubernetes.installation import installation
from weft.kubernetes.installation.assembly import namespace_document
from weft.kubernetes.installation.setup import DEFAULT_NAMESPACE
from weft.kubernetes.installation_values import read_values
from weft.kubernetes.manifest_text import write_manifests
from weft.kubernetes.values_text import assignment, merged, read_values_file


def render(
    *,
    values: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--values", "-f"],
            negative="",
            show_default=False,
            help="File with values (- for standard input); may be repeated, the later ones win.",
        ),
    ] = (),
    set_: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            negative="",
            show_default=False,
            help="One value, as in nats.storage.size=20Gi; may be repeated, and wins over files.",
        ),
    ] = (),
    name: Annotated[str, Parameter(help="Of the installation: what its objects begin with.")] = DEFAULT_NAME,
    namespace: Annotated[
        str, Parameter(name=["--namespace", "-n"], help="Where it is installed.")
    ] = DEFAULT_NAMESPACE,
    create_namespace: Annotated[bool, Parameter(help="Begin with the namespace.")] = True,
    crds: Annotated[bool, Parameter(help="Have the definitions of custom resources in it.")] = True,
    output: ManifestFormOption = ManifestForm.YAML,
) -> None:
    """Write an installation of Weft: `weft kubernetes render | kubectl apply --server-side -f -`.

    It is the same as what the Helm chart makes of the same values.
    """
    files = [read_manifests([each]) for each in values]
    given = [read_values_file(each.text, each.name) for each in files]
    wanted = read_values(merged([*given, *(assignment(each) for each in set_)]))
    documents = [
        *([namespace_document(namespace)] if create_namespace else []),
        *(custom_resource_definitions() if crds else []),
        *installation(wanted, name=name, namespace=namespace),
    ]
    if output is ManifestForm.JSON:
        print_json({"apiVersion": "v1", "kind": "List", "items": documents})
    else:
        print(write_manifests(documents), end="")
