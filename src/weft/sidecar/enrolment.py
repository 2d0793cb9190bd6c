"""How a sidecar gets its first identity: by what its settings give it to prove itself with."""

from __future__ import annotations

from pathlib import Path

from weft.sidecar.attempts import persistently
from weft.sidecar.identity import SERVICE_ACCOUNT, SidecarIdentity, read_evidence, read_trust
from weft.sidecar.settings import SidecarSettings


def new_identity(settings: SidecarSettings, directory: Path) -> SidecarIdentity:
    """The identity that `enrol` is to obtain; its keys are kept in `directory`. Raises InvalidRequest."""
    assert settings.trust_bundle is not None, "the settings insist on it"  # noqa: S101
    return SidecarIdentity(
        directory,
        settings.api_addresses,
        read_trust(settings.trust_bundle),
        trust_refresh=settings.trust_refresh,
        shared=settings.identity_directory,
        shared_with_group=settings.identity_group,
        nats_servers=settings.nats_servers,
    )


async def enrol(identity: SidecarIdentity, settings: SidecarSettings) -> None:
    """Obtain it. Raises Unavailable once that took `start_timeout`; Unauthenticated, Denied."""

    async def prove() -> None:
        if settings.join_token or settings.service_account_token is None:
            await identity.obtain(settings.join_token, settings.id)
            return
        # Kubernetes replaces it every now and then.
        token = read_evidence(settings.service_account_token)
        await identity.obtain(token, settings.id, attestor=SERVICE_ACCOUNT)

    await persistently(prove, what="obtaining an identity", timeout=settings.start_timeout)
