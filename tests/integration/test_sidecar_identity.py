"""A sidecar's identity, from the real API over TLS."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.authority import AuthorityApi, authority_api
from tests.cluster import ISSUER, Cluster

from weft.aio.poll import until
from weft.controlplane.ca.lifetimes import Lifetimes
from weft.controlplane.ca.rotation import Level
from weft.controlplane.pods import PodAdmission
from weft.controlplane.service_accounts import ServiceAccounts
from weft.errors import Denied, InvalidRequest, Unauthenticated, Unavailable
from weft.identity.svid import parse_svid, verify_svid
from weft.model.audit import Outcome
from weft.model.node import Address
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, agent_id
from weft.sidecar.identity import SERVICE_ACCOUNT, SidecarIdentity, read_evidence, read_trust

EDITOR = agent_id(DEFAULT_TRUST_DOMAIN, "editor", "editor-0")
SHORT = Lifetimes(svid=2.0, propagation=1.0)
RENEWED_IN_TIME = Lifetimes(svid=8.0, propagation=1.0)
"""On a machine that stands still for seconds, too."""
LIMIT = 60.0


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[AuthorityApi]:
    async with authority_api(tmp_path) as api:
        yield api


def identity(api: AuthorityApi, directory: Path, *, trust_refresh: float = 30.0) -> SidecarIdentity:
    directory.mkdir(exist_ok=True)
    return SidecarIdentity(directory, [api.address], read_trust(api.bundle), trust_refresh=trust_refresh)


async def token(api: AuthorityApi, instance: str = "editor-0") -> str:
    return (await api.admission("editor", instance))["WEFT_JOIN_TOKEN"]


async def test_an_identity_is_obtained_and_written_for_envoy_and_for_nobody_else(
    api: AuthorityApi, tmp_path: Path
) -> None:
    own = identity(api, tmp_path / "runtime")
    await own.obtain(await token(api), "editor-0")
    assert own.id == EDITOR
    secret = json.loads((tmp_path / "runtime" / "identity.json").read_text())["resources"][0]
    chain = secret["tls_certificate"]["certificate_chain"]["inline_string"].encode()
    assert verify_svid(parse_svid(chain), api.membership.authority.bundles, now=time.time()) == EDITOR
    for file in (tmp_path / "runtime").iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    done = [each for each in api.audit.records if each.action == "issue svid"]
    assert [(each.who, each.outcome) for each in done] == [(str(EDITOR), Outcome.DONE)]


async def test_a_program_of_another_user_may_read_its_identity_by_its_group(
    api: AuthorityApi, tmp_path: Path
) -> None:
    (tmp_path / "runtime").mkdir()
    own = SidecarIdentity(
        tmp_path / "runtime",
        [api.address],
        read_trust(api.bundle),
        trust_refresh=30.0,
        shared=tmp_path / "shared",
        shared_with_group=True,
    )
    await own.obtain(await token(api), "editor-0")
    shared = tmp_path / "shared"
    assert shared.stat().st_mode & 0o777 == 0o750
    assert {each.name: each.stat().st_mode & 0o777 for each in shared.iterdir()} == dict.fromkeys(
        ("svid.pem", "nats-roots.pem", "nats-servers"), 0o640
    )
    # What Envoy reads is for nobody else, as ever.
    for file in (tmp_path / "runtime").iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


async def test_a_join_token_used_twice_is_refused_and_audited(api: AuthorityApi, tmp_path: Path) -> None:
    spent = await token(api)
    await identity(api, tmp_path / "one").obtain(spent, "editor-0")
    with pytest.raises(Unauthenticated, match="used before"):
        await identity(api, tmp_path / "two").obtain(spent, "editor-0")
    last = api.audit.records[-1]
    assert (last.action, last.outcome) == ("issue svid", Outcome.DENIED)
    assert spent not in repr(api.audit.records)


async def test_a_pod_gets_its_identity_by_the_token_that_kubernetes_gives_it(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    pods = ServiceAccounts(PodAdmission(DEFAULT_TRUST_DOMAIN), issuer=ISSUER, keys=cluster.keys)
    (tmp_path / "token").write_text(f"{cluster.token()}\n")
    async with authority_api(tmp_path, attestors={SERVICE_ACCOUNT: pods}) as api:
        own = identity(api, tmp_path / "runtime")
        evidence = read_evidence(tmp_path / "token")
        await own.obtain(evidence, "editor-0", attestor=SERVICE_ACCOUNT)
        assert own.id == EDITOR
        with pytest.raises(Denied, match="editor-1"):
            await own.obtain(evidence, "editor-1", attestor=SERVICE_ACCOUNT)
        with pytest.raises(Unauthenticated):
            await own.obtain("nonsense", "editor-0", attestor=SERVICE_ACCOUNT)
    with pytest.raises(Unavailable, match="cannot be read"):
        read_evidence(tmp_path / "nothing")


async def test_another_s_name_is_refused(api: AuthorityApi, tmp_path: Path) -> None:
    with pytest.raises(Denied, match="editor-1"):
        await identity(api, tmp_path / "runtime").obtain(await token(api), "editor-1")


async def test_an_api_of_another_authority_is_not_believed(api: AuthorityApi, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with authority_api(tmp_path / "other") as other:
        own = SidecarIdentity(tmp_path, [other.address], read_trust(api.bundle), trust_refresh=30.0)
        with pytest.raises(Unavailable, match="certificate is refused"):
            await own.obtain(await token(other), "editor-0")


async def test_an_api_that_is_not_there_is_unavailable(api: AuthorityApi, tmp_path: Path) -> None:
    own = SidecarIdentity(tmp_path, [Address("127.0.0.1", 9)], read_trust(api.bundle), trust_refresh=30.0)
    with pytest.raises(Unavailable, match="does not answer"):
        await own.obtain("weft_join_x", "editor-0")


async def test_what_holds_no_roots_is_no_trust_bundle(tmp_path: Path) -> None:
    for content in (b"", b"nonsense"):
        (tmp_path / "bundle.pem").write_bytes(content)
        with pytest.raises(InvalidRequest, match="holds no roots"):
            read_trust(tmp_path / "bundle.pem")
    with pytest.raises(InvalidRequest):
        read_trust(tmp_path / "missing.pem")


async def test_an_identity_is_renewed_with_a_new_key_before_it_expires(tmp_path: Path) -> None:
    async with authority_api(tmp_path, RENEWED_IN_TIME) as api:
        own = identity(api, tmp_path / "runtime")
        await own.obtain(await token(api), "editor-0")
        before, key = own.expires_at, _key(tmp_path / "runtime")
        running = asyncio.create_task(own.run())

        async def renewed() -> bool:
            return own.expires_at > before

        async with asyncio.timeout(LIMIT):
            await until(renewed)
        assert time.time() < before
        assert _key(tmp_path / "runtime") != key
        await _cancel(running)


async def test_a_sidecar_survives_a_disk_that_takes_nothing_for_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with authority_api(tmp_path, RENEWED_IN_TIME) as api:
        own = identity(api, tmp_path / "runtime")
        await own.obtain(await token(api), "editor-0")
        before, file = own.expires_at, tmp_path / "runtime" / "identity.json"
        file.unlink()
        file.mkdir()
        running = asyncio.create_task(own.run())

        async def told() -> bool:
            return "cannot be written" in caplog.text

        async def renewed() -> bool:
            return own.expires_at > before

        async with asyncio.timeout(LIMIT):
            await until(told)
            file.rmdir()
            await until(renewed)
        assert not running.done()
        await _cancel(running)


async def test_a_new_root_is_trusted_before_anybody_signs_below_it(tmp_path: Path) -> None:
    async with authority_api(tmp_path, RENEWED_IN_TIME) as api:
        own = identity(api, tmp_path / "runtime", trust_refresh=0.2)
        await own.obtain(await token(api), "editor-0")
        running = asyncio.create_task(own.run())
        await api.membership.authority.rotate(Level.ROOT)

        async def one_root_is_left() -> bool:
            status = api.membership.authority.status
            trusted = (tmp_path / "runtime" / "own-trust.json").read_text()
            roots = trusted.count("BEGIN CERTIFICATE")
            return status.next_root is None and not status.previous_roots and roots == 1

        async with asyncio.timeout(LIMIT):
            await until(one_root_is_left)
        assert not running.done()
        await _cancel(running)


async def test_a_revoked_identity_is_not_renewed_and_says_so(tmp_path: Path) -> None:
    async with authority_api(tmp_path, RENEWED_IN_TIME) as api:
        own = identity(api, tmp_path / "runtime")
        await own.obtain(await token(api), "editor-0")
        await api.membership.identities.revoke(EDITOR, by="operator/alice", reason="")
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(own.run(), LIMIT)
        assert "revoked" in str(caught.value.exceptions[0])


async def test_an_identity_that_expired_while_the_control_plane_was_away_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with authority_api(tmp_path, SHORT) as api:
        own = identity(api, tmp_path / "runtime")
        await own.obtain(await token(api), "editor-0")
    running = asyncio.create_task(own.run())

    async def said() -> bool:
        return "expired at" in caplog.text and "could not be renewed in time" in caplog.text

    async with asyncio.timeout(LIMIT):
        await until(said)
    assert not running.done()
    await _cancel(running)


def _key(directory: Path) -> str:
    secret = json.loads((directory / "identity.json").read_text())["resources"][0]
    key: str = secret["tls_certificate"]["private_key"]["inline_string"]
    return key


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
