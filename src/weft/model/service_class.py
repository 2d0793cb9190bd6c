"""Classes of service: whose calls go first when they have to wait."""

from __future__ import annotations

from enum import StrEnum


class ServiceClass(StrEnum):
    """Who goes first. Within a class tenants are served fairly."""

    INTERACTIVE = "interactive"
    """Somebody looks at the screen."""
    STANDARD = "standard"
    BATCH = "batch"
    """Whenever there is room."""

    @property
    def rank(self) -> int:
        """0 goes first."""
        return list(ServiceClass).index(self)
