"""What parts that make sidecars are told of them: the same options as `weft inject` has."""

from __future__ import annotations

from weft.kubernetes.installation.setup import Setup


def injection_flags(setup: Setup) -> list[str]:
    """Image and addresses of this installation."""
    return [
        f"--image={setup.image}",
        f"--trust-domain={setup.values.trust_domain}",
        f"--roots={setup.roots}",
        f"--api={setup.api}",
        f"--xds={setup.xds}",
        f"--nats={setup.nats}",
    ]
