"""`weft kubernetes bootstrap`: the first keys of an installation, made in the cluster."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from weft.errors import Unavailable
from weft.identity.pod_access import PodAccess
from weft.kubernetes.first_keys import DEFAULT_CLUSTER_DOMAIN, DEFAULT_NAME, first_keys
from weft.kubernetes.in_cluster import InCluster


async def bootstrap(
    *,
    name: Annotated[str, Parameter(help="Of the installation: what its Secrets begin with.")] = DEFAULT_NAME,
    cluster_domain: Annotated[
        str, Parameter(help="The domain of the cluster's Services, for NATS's certificate.")
    ] = DEFAULT_CLUSTER_DOMAIN,
) -> None:
    """In a pod: make the keys that an installation begins with, as Secrets beside it, where there are none.

    A Secret that is there stays as it is, so that this can be run again. The pod's service account must be
    allowed to create Secrets, and nothing else.
    """
    access = PodAccess.of(os.environ)
    try:
        secrets = first_keys(name, access.namespace, cluster_domain)
    except OSError as error:
        raise Unavailable(
            f"there is no room to make keys in ({error}): mount an emptyDir in memory at /tmp"
        ) from error
    async with InCluster(access) as cluster:
        for each in secrets:
            made = await cluster.create_secret(each)
            print(f"secret/{each['metadata']['name']} {'created' if made else 'is there already'}")
