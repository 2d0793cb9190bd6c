"""The Job that makes the first keys."""

from __future__ import annotations

import hashlib
from typing import Final

from weft.kubernetes.installation.pods import TMP, container, pod, service_account
from weft.kubernetes.installation.rbac import bootstrap_rules, namespaced
from weft.kubernetes.installation.setup import Document, Setup

PART: Final = "bootstrap"
_KEPT_SECONDS: Final = 600
"""For which a Job that is done can be looked at."""


def bootstrap(setup: Setup) -> list[Document]:
    """Account, rights and Job; nothing where the keys come from elsewhere."""
    values = setup.values.bootstrap
    if not values.enabled:
        return []
    arguments = [f"--name={setup.name}", f"--cluster-domain={setup.values.cluster_domain}"]
    job = container(
        setup,
        "bootstrap",
        ["weft", "kubernetes", "bootstrap"],
        arguments,
        values.resources,
        volumeMounts=[TMP],
    )
    template = pod(setup, PART, setup.named(PART), [job], [], token=True, grace=30)
    template["spec"]["restartPolicy"] = "Never"
    spec = {"backoffLimit": 10, "ttlSecondsAfterFinished": _KEPT_SECONDS, "template": template}
    return [
        service_account(setup, PART),
        *namespaced(setup, PART, bootstrap_rules()),
        setup.document("batch/v1", "Job", PART, name=_job_name(setup), spec=spec),
    ]


def _job_name(setup: Setup) -> str:
    """Another one for another image: a Job cannot be changed, and an upgrade's is to make what is missing."""
    return f"{setup.named(PART)}-{hashlib.sha256(setup.image.encode()).hexdigest()[:8]}"
