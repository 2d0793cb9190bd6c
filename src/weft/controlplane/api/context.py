"""What the API's endpoints work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from weft.controlplane.sidecars import Sidecars
from weft.registry.view import View
from weft.resources.store import Resources
from weft.resources.view import ResourceView


@dataclass(frozen=True, slots=True)
class ApiContext:
    """The parts of this replica that the API speaks for."""

    instances: View
    resources: Resources
    declared: ResourceView
    sidecars: Sidecars


def _context(request: Request) -> ApiContext:
    return cast(ApiContext, request.app.state.context)


Context = Annotated[ApiContext, Depends(_context)]
"""An endpoint's parameter of this type gets the ApiContext."""
