"""Secrets and Egress as resources: values are sealed before they are stored, never shown, and can be kept."""

from __future__ import annotations

import logging
import os

import pytest

from weft.cli.get import summary
from weft.cli.resources import read_resource
from weft.controlplane.sealing import Sealer
from weft.controlplane.secrets import Secrets
from weft.errors import InvalidResource
from weft.model.manifest import dump_manifest, parse_documents, parse_manifest
from weft.resources.codec import ResourceCodec
from weft.resources.store import Outcome, Resources
from weft.store.memory import MemoryStore

VALUE = "s3cr3t-of-the-provider"
INJECT = "inject: [{host: api.example.com, key: apiKey, prefix: 'Bearer '}]"


def secret(value: str, more: str = "", *, name: str = "llm") -> str:
    return (
        f"apiVersion: weft.dev/v1alpha1\nkind: Secret\nmetadata: {{name: {name}}}\n"
        f"spec:\n  data: {{apiKey: {value}}}\n  {more}\n"
    )


@pytest.fixture
def secrets() -> Secrets:
    return Secrets(Sealer([os.urandom(32)]))


async def opened(secrets: Secrets) -> Resources:
    return await Resources.open(MemoryStore(), secrets)


async def test_a_value_is_sealed_and_what_is_shown_in_its_place_keeps_it(secrets: Secrets) -> None:
    resources = await opened(secrets)
    [created] = await resources.apply(parse_documents(secret(VALUE)))
    stored = await resources.get("Secret", "llm")
    assert secrets.value(stored, "apiKey") == VALUE
    shown = dump_manifest([stored])
    assert f"<sealed: {len(VALUE)} bytes, changed 20" in shown
    [again] = await resources.apply(parse_documents(shown))
    assert (created.outcome, again.outcome) == (Outcome.CREATED, Outcome.UNCHANGED)
    [same_value] = await resources.apply(parse_documents(secret(VALUE)))
    assert same_value.outcome is Outcome.UNCHANGED
    [rotated] = await resources.apply(parse_documents(secret(VALUE[::-1])))
    assert rotated.outcome is Outcome.CONFIGURED
    assert secrets.value(await resources.get("Secret", "llm"), "apiKey") == VALUE[::-1]


async def test_nothing_that_is_written_or_said_holds_the_value(
    secrets: Secrets, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    resources = await opened(secrets)
    documents = parse_documents(secret(VALUE))
    [difference] = await resources.diff(documents)
    [applied] = await resources.apply(documents)
    stored = ResourceCodec().encode(applied.resource)
    said = f"{documents!r} {documents} {difference} {applied} {stored!r} {applied.resource.document()}"
    assert VALUE not in said
    assert VALUE not in caplog.text
    assert secrets.value(ResourceCodec().decode(stored), "apiKey") == VALUE


async def test_the_store_takes_no_value_that_is_not_sealed() -> None:
    [given] = parse_manifest(secret(VALUE))
    with pytest.raises(ValueError, match="sealed") as caught:
        ResourceCodec().encode(given)
    assert VALUE not in str(caught.value)
    resources = await Resources.open(MemoryStore())
    with pytest.raises(InvalidResource, match="no sealing key"):
        await resources.apply(parse_documents(secret(VALUE)))


@pytest.mark.parametrize(
    "data",
    [
        f"{{apiKey: [{VALUE}]}}",
        f"{{apiKey: {{value: {VALUE}}}}}",
        f"{{apiKey: {{fromEnv: HOME, value: {VALUE}}}}}",
        f"{{apiKey: {{box: {VALUE}, size: 1, changed: now}}}}",
        f"[{VALUE}]",
        VALUE,
    ],
)
def test_an_error_never_repeats_what_was_given(data: str) -> None:
    text = secret("x").replace("{apiKey: x}", data)
    with pytest.raises(InvalidResource) as caught:
        parse_manifest(text, "m.yaml")
    assert caught.value.problems
    assert VALUE not in str(caught.value.problem())


async def test_a_value_to_be_kept_must_be_there_and_is_of_this_secret_and_key_only(secrets: Secrets) -> None:
    resources = await opened(secrets)
    shown = '"<sealed: 4 bytes, changed 2026-01-01T00:00:00Z>"'
    with pytest.raises(InvalidResource, match=r"m.yaml:5: spec.data.apiKey: there is no value stored"):
        await resources.apply(parse_documents(secret(shown), "m.yaml"))
    [first] = await resources.apply(parse_documents(secret(VALUE)))
    [other] = await resources.apply(parse_documents(secret(VALUE, name="other")))
    moved = other.resource.model_copy(update={"spec": first.resource.spec})
    assert secrets.value(moved, "apiKey") is None


async def test_what_is_kept_goes_nowhere_but_where_it_went_before(secrets: Secrets) -> None:
    resources = await opened(secrets)
    await resources.apply(parse_documents(secret(VALUE, INJECT)))
    shown = dump_manifest([await resources.get("Secret", "llm")])
    narrowed = shown.replace("key: apiKey", "key: apiKey\n    for: [editor]")
    await resources.apply(parse_documents(narrowed))
    stolen = INJECT.replace("api.example.com", "evil.example.net")
    kept = "'<sealed: 1 bytes, changed never>'"
    for inject in (
        stolen,
        INJECT.replace("key:", "address: 192.0.2.1, key:"),
        INJECT.replace("key:", "tls: false, port: 443, key:"),
    ):
        with pytest.raises(InvalidResource, match="where it did not go before: give the value"):
            await resources.apply(parse_documents(secret(kept, inject)))
    [moved] = await resources.apply(parse_documents(secret(VALUE, stolen)))
    assert moved.outcome is Outcome.CONFIGURED


async def test_what_is_injected_must_be_fit_for_a_header(secrets: Secrets) -> None:
    resources = await opened(secrets)
    with pytest.raises(InvalidResource, match=r"spec.data.apiKey: is injected as a header") as caught:
        await resources.apply(parse_documents(secret(rf'"{VALUE}\r\nx-admin: yes"', INJECT)))
    assert VALUE not in str(caught.value)


async def test_another_sealing_key_cannot_open_what_was_sealed(
    secrets: Secrets, caplog: pytest.LogCaptureFixture
) -> None:
    resources = await opened(secrets)
    [applied] = await resources.apply(parse_documents(secret(VALUE)))
    assert Secrets(Sealer([os.urandom(32)])).value(applied.resource, "apiKey") is None
    assert "Secret 'llm' cannot be used" in caplog.text


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        (secret("v", INJECT.replace("apiKey", "other")), "spec.inject[0].key: names no value of data"),
        (
            secret("v", INJECT) + "---\n" + secret("v", INJECT.replace("key:", "for: [w], key:"), name="b"),
            "spec.inject[0].host: Secret 'llm' is injected into calls to api.example.com",
        ),
        (secret("v", INJECT.replace("api.example.com", "control.mesh")), "is in the mesh's own domain"),
        (secret("v", INJECT.replace("api.example.com", "API.example.com")), "in lower case"),
        (secret("v", INJECT.replace("api.example.com", "127.0.1")), "no IPv4 address in its usual form"),
        (secret("v", INJECT.replace("key:", "header: Host, key:")), "the mesh's own to set"),
    ],
)  # fmt: skip
def test_an_injection_that_cannot_be_meant_is_refused(resources: str, problem: str) -> None:
    with pytest.raises(InvalidResource) as caught:
        parse_manifest(resources)
    assert problem in str(caught.value)


def egress(name: str, spec: str) -> str:
    return f"apiVersion: weft.dev/v1alpha1\nkind: Egress\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        (egress("a", "mode: open, allow: [{host: a.b}]"), "spec.allow: goes with mode list only"),
        (
            egress("a", "mode: open") + "---\n" + egress("b", "mode: list"),
            "Egress 'a' is for the mesh's default",
        ),
        (
            egress("a", "mode: open, for: [w, v]") + "---\n" + egress("b", "mode: list, for: [v]"),
            "Egress 'a' is for type 'v' already",
        ),
        (egress("a", "mode: list, allow: [{host: '*.10.0.0.1'}]"), "is an address"),
        (egress("a", "mode: list, allow: [{host: 'a.*.example'}]"), "must be a host's name"),
    ],
)  # fmt: skip
def test_an_egress_that_cannot_be_meant_is_refused(resources: str, problem: str) -> None:
    with pytest.raises(InvalidResource) as caught:
        parse_manifest(resources)
    assert problem in str(caught.value)


async def test_a_kept_value_is_sealed_anew_once_the_sealing_key_has_changed() -> None:
    store, old, new = MemoryStore(), os.urandom(32), os.urandom(32)
    await (await Resources.open(store, Secrets(Sealer([old])))).apply(parse_documents(secret(VALUE)))
    resources = await Resources.open(store, Secrets(Sealer([new, old])))
    shown = dump_manifest([await resources.get("Secret", "llm")])
    [kept] = await resources.apply(parse_documents(shown))
    assert kept.outcome is Outcome.CONFIGURED
    assert Secrets(Sealer([new])).value(kept.resource, "apiKey") == VALUE
    shown = dump_manifest([kept.resource])
    with pytest.raises(InvalidResource, match=r"spec\.data\.apiKey: cannot be kept"):
        await (await Resources.open(store, Secrets(Sealer([old])))).apply(parse_documents(shown))


async def test_what_the_api_shows_is_read_back_and_shown_the_same(secrets: Secrets) -> None:
    resources = await opened(secrets)
    [applied] = await resources.apply(parse_documents(secret(VALUE, INJECT)))
    document = applied.resource.document()
    assert read_resource(document).document() == document
    assert summary(read_resource(document)) == "apiKey, for api.example.com"
