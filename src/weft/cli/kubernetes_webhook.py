"""`weft kubernetes webhook`: what a cluster's API asks before it takes a pod or a custom resource."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weft.cli.injection_options import InjectionOptions
from weft.kubernetes.first_keys import DEFAULT_NAME
from weft.kubernetes.webhook.process import (
    DEFAULT_HEALTH_PORT,
    DEFAULT_KEYS,
    DEFAULT_PORT,
    WebhookSettings,
    run_webhook,
)
from weft.model.names import check_name
from weft.tracing.logs import start_logging

_AS_USUAL = InjectionOptions()


async def webhook(
    *,
    name: Annotated[str, Parameter(help="Of the installation: what its objects begin with.")] = DEFAULT_NAME,
    listen: Annotated[str, Parameter(help="Address to listen at: the pod's.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="For API servers.")] = DEFAULT_PORT,
    health_port: Annotated[
        int, Parameter(help="For the kubelet and Prometheus: /livez, /readyz, /metrics.")
    ] = DEFAULT_HEALTH_PORT,
    keys: Annotated[
        Path, Parameter(help="Directory with ca.crt, tls.crt and tls.key of the Secret of `bootstrap`.")
    ] = DEFAULT_KEYS,
    sidecars: InjectionOptions = _AS_USUAL,
) -> None:
    """In a pod: put sidecars into pods that are created, and check custom resources.

    The pod's service account must be allowed to get and patch the installation's webhook configurations, in
    which it tells API servers whom to believe, and to list custom resources.
    """
    settings = WebhookSettings(check_name(name), listen, port, health_port, keys, sidecars.settings())
    start_logging("%(asctime)s %(levelname)s %(name)s: %(message)s", os.environ, agent=f"webhook.{name}")
    await run_webhook(settings, os.environ)
