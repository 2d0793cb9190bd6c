"""Mistakes, and providers that fail: the real Envoy answers as OpenAI's clients expect."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator

import httpx
import pytest
from tests.llm import FakeProvider, Models, answer, models, pool

from weft.controlplane.sealing import Sealer
from weft.controlplane.secrets import Secrets
from weft.model.yaml_tree import dump


@pytest.fixture
async def mesh() -> AsyncIterator[Models]:
    async with models(Secrets(Sealer([os.urandom(32)]))) as running:
        yield running


def told(response: httpx.Response) -> tuple[int, str]:
    """The status and the code of an error, which must be as OpenAI's are."""
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
    assert response.headers["x-weft-error"] == error["code"]
    return response.status_code, error["code"]


async def test_what_is_wrong_with_a_call_is_said_before_it_goes_anywhere(mesh: Models) -> None:
    async with FakeProvider().serving() as provider:
        secret_pool = pool("hidden", {"name": "one", "url": provider.url})
        policy = {
            "effect": "deny",
            "from": [{"type": "worker"}],
            "to": [{"pool": "hidden"}],
        }
        deny = dump(
            [
                {
                    "apiVersion": "weft.dev/v1alpha1",
                    "kind": "AccessPolicy",
                    "metadata": {"name": "not-workers"},
                    "spec": policy,
                }
            ]
        )
        open_pool = pool("gpt", {"name": "one", "url": provider.url}, maxBodyBytes=2000)
        await mesh.agent.declare("---\n".join([open_pool, secret_pool, deny]))
        await mesh.lease("gpt", "hidden")
        with_options = b'{"model": "gpt", "stream": true, "stream_options": %s}'
        wrong = {
            b"": "invalid_request",
            b"[]": "invalid_request",
            b'{"model": "gpt", "messages": [}': "invalid_request",
            b'{"model": "gpt"} x': "invalid_request",
            b'{"model": "gpt", "model": "hidden"}': "invalid_request",
            b'{"model": "gpt", "Model": "hidden"}': "invalid_request",
            b'{"model": "gpt", "mod\\u0065l": "hidden"}': "invalid_request",
            b'{"model": 5}': "invalid_request",
            b'{"messages": []}': "invalid_request",
            b'{"model": "gpt", "stream": "yes"}': "invalid_request",
            b'{"model": "gpt", "max_tokens": "5"}': "invalid_request",
            b'{"model": "gpt", "n": "5"}': "invalid_request",
            with_options % b"[]": "invalid_request",
            with_options % b'{"include_us\\u0061ge": false}': "invalid_request",
            with_options % b'{"include_usage": true, "include_usage": false}': "invalid_request",
        }
        for body, code in wrong.items():
            assert told(await mesh.post(body)) == (400, code), body
        unknown = await mesh.call('no"such\r\nmodel')
        assert told(unknown) == (400, "invalid_request")
        assert told(await mesh.call("none")) == (404, "model_not_found")
        assert told(await mesh.call("gpt", user="x" * 3000)) == (413, "request_too_large")
        assert told(await mesh.post(b"{}", path="/v1/nothing")) == (404, "not_found")
        denied = await mesh.call("hidden")
        assert told(denied) == (403, "denied")
        assert denied.headers["x-weft-policy"] == "accesspolicy/not-workers"
        assert "not-workers" in denied.json()["error"]["message"]
        assert not provider.requests
        assert (await mesh.call("gpt")).status_code == 200

        # The hidden pool is not in the list either, by whichever address.
        own = f"http://{mesh.agent.node.outbound}"
        async with httpx.AsyncClient(trust_env=False, timeout=30) as direct:
            for client, base in ((mesh.agent.http, "http://llm.mesh"), (direct, own)):
                listed = (await client.get(f"{base}/v1/models")).json()
                assert (listed["object"], [each["id"] for each in listed["data"]]) == ("list", ["gpt"])
                assert (await client.get(f"{base}/v1/models/gpt")).json()["id"] == "gpt"
                assert told(await client.get(f"{base}/v1/models/hidden")) == (404, "not_found")
            port = mesh.agent.node.outbound.port
            called = await direct.post(f"http://localhost:{port}/v1/chat/completions", json={"model": "gpt"})
            assert called.headers["x-weft-llm-provider"] == "one"
            # Other paths there, and other ports, are none of the models'.
            other = await mesh.agent.http.get(f"http://127.0.0.1:{provider.port}/v1/models")
            assert other.headers.get("x-weft-error") is None
            assert provider.requests[-1].line == "GET /v1/models HTTP/1.1"


async def test_what_providers_get_wrong_is_an_error_that_names_them(mesh: Models) -> None:
    html = b"<html>502 Bad Gateway</html>"
    never_ends = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"
    own_error = answer(b'{"error": {"code": "their_own"}}', status=400)
    async with FakeProvider().serving() as provider:
        limits = {"timeout": "3s", "firstToken": "3s"}
        away = {"name": "away", "url": "http://nowhere.invalid/v1"}
        await mesh.agent.declare(
            pool("gpt", {"name": "one", "url": provider.url, **limits}) + "---\n" + pool("gone", away)
        )
        await mesh.lease("gpt", "gone")
        provider.answers = [answer(html, kind="text/html")]
        assert told(await mesh.call("gpt")) == (502, "provider_error")
        provider.answers = [answer(html, kind="text/html", status=403)]
        refused = await mesh.call("gpt")
        assert told(refused) == (403, "provider_error")
        assert "'one'" in refused.json()["error"]["message"]
        provider.answers = [answer(html)]
        assert told(await mesh.call("gpt")) == (502, "provider_error")
        provider.answers = [own_error]
        theirs = await mesh.call("gpt")
        assert (theirs.status_code, theirs.json()["error"]["code"]) == (400, "their_own")
        provider.answers = [answer(b'{"error": {"message": "bad key: Bearer key-of-one"}}', status=401)]
        unauthorized = await mesh.call("gpt")
        assert told(unauthorized) == (502, "provider_error")
        assert "key-of-one" not in unauthorized.text
        provider.answers = [never_ends]
        assert told(await mesh.call("gpt")) == (504, "provider_timeout")
        assert told(await mesh.call("gone")) == (503, "no_provider")
        silent = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        provider.answers = [silent]
        assert told(await mesh.call("gpt", stream=True)) == (504, "provider_timeout")


async def test_without_a_scheduler_only_what_is_leased_goes_on(mesh: Models) -> None:
    async with FakeProvider().serving() as provider:
        await mesh.agent.declare(pool("gpt", {"name": "one", "url": provider.url}))
        await mesh.lease("gpt", requests=1)
        mesh.agent.snapshots.update_scheduler(None)
        await mesh.agent.synced()
        assert (await mesh.call("gpt")).status_code == 200
        assert told(await mesh.call("gpt")) == (503, "scheduler_unavailable")
        assert len(provider.requests) == 1
        assert json.loads(provider.requests[0].body)["model"] == "gpt"
