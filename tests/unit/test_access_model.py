"""AccessPolicy as it is declared: what is understood, and what is said of what makes no sense."""

from __future__ import annotations

import pytest

from weft.errors import InvalidResource
from weft.model.manifest import parse_manifest


def policy(spec: str, name: str = "p") -> str:
    return (
        f"{{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {{name: {name}}}, spec: {spec}}}\n"
    )


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("{}", "give effect, or"),
        ("{effect: allow, default: deny}", "give effect, or"),
        ("{default: deny, to: [{type: a}]}", "default stands without"),
        ("{effect: allow, from: [{}]}", "leave `from` out for anyone"),
        ("{effect: allow, from: [{operator: alice, type: a}]}", "nobody is both"),
        ("{effect: allow, from: [{instance: a}]}", "write <type>/<id>"),
        ("{effect: allow, from: [{instance: a/b/c}]}", "not a valid name"),
        ("{effect: allow, from: [{type: a, instance: b/c}]}", "is not of type"),
        ("{effect: allow, from: [{trustDomain: Partner}]}", "is not a trust domain"),
        ("{effect: allow, to: [{type: a, topic: t}]}", "or else one of topic"),
        ("{effect: allow, to: [{version: '1'}]}", "goes with a type"),
        ("{effect: allow, to: [{}]}", "give type"),
        ("{effect: deny, rules: [{}]}", "says nothing"),
        ("{effect: deny, rules: [{methods: [get]}]}", "methods"),
        ("{effect: deny, rules: [{paths: [/a/../b]}]}", "would match nothing"),
        ("{effect: deny, rules: [{paths: [//a]}]}", "would match nothing"),
        ("{effect: deny, rules: [{paths: ['/%61']}]}", "paths"),
        ("{effect: deny, rules: [{paths: [/a*b]}]}", "paths"),
        ("{effect: deny, rules: [{mcp: {}}]}", "give methods, tools"),
        ("{effect: deny, rules: [{mcp: {methods: [tools/list], tools: [x]}}]}", "are called with tools/call"),
        ("{effect: deny, rules: [{a2a: {methods: [message/send]}}]}", "is no method of A2A 1.0"),
        ("{effect: allow, rules: [{mcp: {tools: [x]}}]}", "goes with paths where it allows"),
        ("{effect: deny, to: [{type: a}], rules: [{actions: [publish]}]}", "call can"),
        ("{effect: deny, to: [{topic: t}], rules: [{paths: [/x]}]}", "would never match"),
    ],
)
def test_what_makes_no_sense_is_refused(spec: str, said: str) -> None:
    with pytest.raises(InvalidResource, match="spec") as caught:
        parse_manifest(policy(spec), "m.yaml")
    assert said in str(caught.value)


def test_a_policy_cannot_have_a_name_that_reports_use() -> None:
    with pytest.raises(InvalidResource, match="choose another"):
        parse_manifest(policy("{effect: deny}", name="revoked"))


def test_a_second_default_is_refused_and_both_are_named() -> None:
    manifest = "---\n".join([policy("{default: deny}", "one"), policy("{default: allow}", "two")])
    with pytest.raises(InvalidResource, match="delete 'one' or 'two'"):
        parse_manifest(manifest)
