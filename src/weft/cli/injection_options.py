"""Options of all commands that put sidecars into pods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from weft.kubernetes.injection_settings import InjectionSettings

_DEFAULTS = InjectionSettings()


def _listed(addresses: Sequence[str]) -> str:
    return ",".join(addresses)


@Parameter(name="*")
@dataclass(frozen=True)
class InjectionOptions:
    """What sidecars are like, and where they find the mesh."""

    image: Annotated[str, Parameter(help="The sidecars' image.")] = _DEFAULTS.image
    trust_domain: Annotated[str, Parameter(help="The mesh's.")] = _DEFAULTS.trust_domain
    roots: Annotated[str, Parameter(help="ConfigMap with the mesh's roots.")] = _DEFAULTS.roots
    api: Annotated[str, Parameter(help="URL,... of the control plane's API.")] = _listed(_DEFAULTS.api)
    xds: Annotated[str, Parameter(help="HOST:PORT,... of its xDS.")] = _listed(_DEFAULTS.xds)
    nats: Annotated[str, Parameter(help="URL,... of NATS servers.")] = _listed(_DEFAULTS.nats)

    def settings(self) -> InjectionSettings:
        """What they say. Raises InvalidRequest where a value makes no sense."""
        return InjectionSettings(
            image=self.image,
            trust_domain=self.trust_domain,
            roots=self.roots,
            api=_parts(self.api),
            xds=_parts(self.xds),
            nats=_parts(self.nats),
        )


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
