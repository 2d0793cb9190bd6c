"""Pods that prove themselves by what their cluster says of their tokens (TokenReview).

The first tests ask a stand-in and, where there is one, a real kube-apiserver; the rest are about answers that
no API server gives.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.authority import authority_api
from tests.kubernetes_server import kubernetes_server, missing
from tests.kubernetes_tokens import RealCluster, ReviewingCluster, StandInCluster

from weft.aio.poll import until
from weft.controlplane.attestation import Attested
from weft.controlplane.pods import PodAdmission
from weft.controlplane.sealing import KEY_BYTES, Sealer
from weft.controlplane.security import open_security
from weft.controlplane.settings import ControlPlaneSettings
from weft.controlplane.token_reviews import MAX_AT_ONCE, TokenReviews
from weft.errors import Denied, InvalidRequest, Unauthenticated, Unavailable
from weft.identity.pod_access import PodAccess
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, agent_id
from weft.sidecar.identity import SERVICE_ACCOUNT, SidecarIdentity, read_trust
from weft.store.memory import MemoryStore

EDITOR = agent_id(DEFAULT_TRUST_DOMAIN, "editor", "editor-0")
GENEROUS = 120.0

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[
        "stand-in",
        pytest.param("real", marks=pytest.mark.skipif(missing() is not None, reason=str(missing()))),
    ],
)
async def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ReviewingCluster]:
    directory: Path = tmp_path_factory.mktemp("cluster")
    async with AsyncExitStack() as stack:
        made: ReviewingCluster
        if request.param == "stand-in":
            made = await stack.enter_async_context(StandInCluster(directory).serving())
        else:
            server = await stack.enter_async_context(kubernetes_server(directory))
            client = await stack.enter_async_context(server.client())
            made = await RealCluster.prepare(server, client, directory)
        await made.run_pod("crew", "editor", "editor-0")
        reviews = pods(made)
        token = await made.token("crew", "editor", "editor-0")
        async with asyncio.timeout(GENEROUS):
            await until(lambda: _may_review(reviews, token))
        yield made


async def _may_review(reviews: TokenReviews, token: str) -> bool:
    # What roles allow is known to the API server's authorizer a moment after they are written.
    try:
        await reviews.attest(token, instance="editor-0")
    except Unavailable:
        return False
    return True


@pytest_asyncio.fixture(loop_scope="module")
async def stand_in(tmp_path: Path) -> AsyncIterator[StandInCluster]:
    async with StandInCluster(tmp_path).serving() as running:
        await running.run_pod("crew", "editor", "editor-0")
        yield running


def pods(cluster: ReviewingCluster, *namespaces: str, timeout: float = GENEROUS) -> TokenReviews:
    return TokenReviews(PodAdmission(DEFAULT_TRUST_DOMAIN, namespaces), cluster.access, timeout=timeout)


async def attested(stand_in: StandInCluster, **options: Any) -> Attested:
    token = await stand_in.token("crew", "editor", "editor-0")
    return await pods(stand_in, **options).attest(token, instance="editor-0")


async def test_a_pod_is_the_instance_and_its_service_account_the_type(cluster: ReviewingCluster) -> None:
    token = await cluster.token("crew", "editor", "editor-0")
    found = await pods(cluster).attest(token, instance="editor-0")
    assert found == Attested(EDITOR, {"namespace": "crew"}, "service account crew/editor")
    with pytest.raises(Denied, match="not 'editor-1'"):
        await pods(cluster).attest(token, instance="editor-1")


async def test_only_pods_of_the_namespaces_that_are_named_are_believed(cluster: ReviewingCluster) -> None:
    token = await cluster.token("crew", "editor", "editor-0")
    assert (await pods(cluster, "other", "crew").attest(token, instance="editor-0")).id == EDITOR
    with pytest.raises(Denied, match="namespace 'crew' may not join"):
        await pods(cluster, "other").attest(token, instance="editor-0")


async def test_a_token_that_is_bound_to_no_pod_is_refused(cluster: ReviewingCluster) -> None:
    with pytest.raises(Unauthenticated, match="not bound to a pod"):
        await pods(cluster).attest(await cluster.token("crew", "editor"), instance="editor-0")


async def test_a_token_for_somebody_else_is_refused(cluster: ReviewingCluster) -> None:
    token = await cluster.token("crew", "editor", "editor-0", audience="vault")
    with pytest.raises(Unauthenticated, match="audience"):
        await pods(cluster).attest(token, instance="editor-0")


async def test_a_token_that_was_changed_or_signed_by_another_is_refused(
    cluster: ReviewingCluster, tmp_path: Path
) -> None:
    genuine = await cluster.token("crew", "editor", "editor-0")
    head, body, signature = genuine.split(".")
    foreign = await StandInCluster(tmp_path).token("crew", "editor", "editor-0")
    for token in (f"{head}.{body}.{signature[:-8]}AAAAAAAA", f"{head}.{body}.", foreign):
        with pytest.raises(Unauthenticated):
            await pods(cluster).attest(token, instance="editor-0")


async def test_the_token_of_a_pod_that_is_gone_is_refused(cluster: ReviewingCluster) -> None:
    await cluster.run_pod("crew", "editor", "editor-9")
    token = await cluster.token("crew", "editor", "editor-9")
    await cluster.delete_pod("crew", "editor-9")

    async def refused() -> bool:
        try:
            await pods(cluster).attest(token, instance="editor-9")
        except Unauthenticated:
            return True
        return False

    # An API server may go by what it knew of the pod for some seconds.
    async with asyncio.timeout(GENEROUS):
        await until(refused)


async def test_a_service_account_whose_name_is_no_type_gets_no_identity(cluster: ReviewingCluster) -> None:
    await cluster.run_pod("crew", "control", "control-0")
    token = await cluster.token("crew", "control", "control-0")
    with pytest.raises(Unauthenticated, match="cannot be an agent"):
        await pods(cluster).attest(token, instance="control-0")


async def test_a_control_plane_that_may_not_ask_believes_nobody_and_tells_its_operator(
    cluster: ReviewingCluster, caplog: pytest.LogCaptureFixture
) -> None:
    token = await cluster.token("crew", "editor", "editor-0")
    await cluster.permit(reviews=False)
    reviews = pods(cluster)
    try:
        async with asyncio.timeout(GENEROUS):
            await until(lambda: _refused(reviews, token))
        with (
            caplog.at_level(logging.WARNING),
            pytest.raises(Unavailable, match="control plane's log") as refusal,
        ):
            await reviews.attest(token, instance="editor-0")
    finally:
        await cluster.permit(reviews=True)
        async with asyncio.timeout(GENEROUS):
            await until(lambda: _may_review(reviews, token))
    assert "give the control plane's service account a ClusterRole" in caplog.text
    assert token not in caplog.text + refusal.value.detail


async def _refused(reviews: TokenReviews, token: str) -> bool:
    return not await _may_review(reviews, token)


async def test_a_sidecar_gets_its_identity_by_what_the_cluster_says(
    cluster: ReviewingCluster, tmp_path: Path
) -> None:
    token = await cluster.token("crew", "editor", "editor-0")
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    async with authority_api(tmp_path, attestors={SERVICE_ACCOUNT: pods(cluster)}) as api:
        own = SidecarIdentity(runtime, [api.address], read_trust(api.bundle), trust_refresh=30.0)
        await own.obtain(token, "editor-0", attestor=SERVICE_ACCOUNT)
        assert own.id == EDITOR
        with pytest.raises(Denied, match="editor-1"):
            await own.obtain(token, "editor-1", attestor=SERVICE_ACCOUNT)


async def test_every_attestation_asks_anew(stand_in: StandInCluster) -> None:
    for count in (1, 2):
        await attested(stand_in)
        assert stand_in.asked == count


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "x" * 10_000])
async def test_the_api_server_is_not_asked_about_what_is_no_token(
    stand_in: StandInCluster, token: str
) -> None:
    with pytest.raises(Unauthenticated, match="no service account token"):
        await pods(stand_in).attest(token, instance="editor-0")
    assert stand_in.asked == 0


def status(**changes: Any) -> dict[str, Any]:
    user = {
        "username": "system:serviceaccount:crew:editor",
        "extra": {"authentication.kubernetes.io/pod-name": ["editor-0"]},
    }
    return {"authenticated": True, "user": user, "audiences": ["weft"], **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"authenticated": False},
        {"audiences": []},
        {"audiences": ["https://kubernetes.default.svc"]},
        {"user": {**status()["user"], "username": "alice"}},
        {"user": {**status()["user"], "username": "system:serviceaccount:editor"}},
        {"user": {**status()["user"], "username": "system:serviceaccount:crew:"}},
        {"user": {**status()["user"], "username": "x:system:serviceaccount:crew:editor"}},
        {"user": {**status()["user"], "extra": {"authentication.kubernetes.io/pod-name": []}}},
        {"user": {**status()["user"], "extra": {"authentication.kubernetes.io/pod-name": ["a", "editor-0"]}}},
    ],
    ids=str,
)
async def test_what_does_not_name_one_pod_of_a_service_account_proves_nothing(
    stand_in: StandInCluster, changes: dict[str, Any]
) -> None:
    stand_in.instead = json.dumps({"status": status()}).encode()
    assert (await attested(stand_in)).id == EDITOR
    stand_in.instead = json.dumps({"status": status(**changes)}).encode()
    with pytest.raises(Unauthenticated):
        await attested(stand_in)


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"status": {"user": 5}}', b"x" * 2_000_000])
async def test_an_answer_that_is_no_review_proves_nothing(stand_in: StandInCluster, answer: bytes) -> None:
    stand_in.instead = answer
    with pytest.raises(Unavailable):
        await attested(stand_in)


async def test_an_api_server_that_does_not_answer_is_not_waited_for_without_end(
    stand_in: StandInCluster,
) -> None:
    stand_in.answering.clear()
    with pytest.raises(Unavailable):
        await attested(stand_in, timeout=0.5)
    stand_in.answering.set()


async def test_only_so_many_questions_are_asked_at_once(stand_in: StandInCluster) -> None:
    stand_in.answering.clear()
    token = await stand_in.token("crew", "editor", "editor-0")
    reviews = pods(stand_in)
    everybody = asyncio.gather(*(reviews.attest(token, instance="editor-0") for _ in range(2 * MAX_AT_ONCE)))

    async def all_turns_taken() -> bool:
        return stand_in.asked >= MAX_AT_ONCE

    async with asyncio.timeout(GENEROUS):
        await until(all_turns_taken)
    stand_in.answering.set()
    assert {each.id for each in await everybody} == {EDITOR}
    assert (stand_in.asked, stand_in.most_at_once) == (2 * MAX_AT_ONCE, MAX_AT_ONCE)


async def test_a_pod_that_lost_its_credentials_believes_nobody(
    stand_in: StandInCluster, caplog: pytest.LogCaptureFixture
) -> None:
    given: list[PodAccess] = [stand_in.access()]

    def access() -> PodAccess:
        if given:
            return given.pop()
        raise InvalidRequest("token, which a pod has, cannot be read")

    reviews = TokenReviews(PodAdmission(DEFAULT_TRUST_DOMAIN), access)
    token = await stand_in.token("crew", "editor", "editor-0")
    with pytest.raises(Unavailable):
        await reviews.attest(token, instance="editor-0")
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"service_account_review": True}, "in a pod of a cluster only"),
        (
            {
                "service_account_review": True,
                "service_account_issuer": "https://cluster.example",
                "service_account_keys_file": "keys.json",
            },
            "leave out",
        ),
        ({"service_account_namespaces": ["crew"]}, "limits which pods are believed"),
    ],
    ids=["outside of a cluster", "both ways", "a limit of nothing"],
)
async def test_settings_that_make_no_sense_are_told_at_the_start(
    settings: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    store = MemoryStore()
    with pytest.raises(InvalidRequest, match=problem):
        async with open_security(ControlPlaneSettings(**settings), store, Sealer([b"k" * KEY_BYTES])):
            pass
    await store.close()
