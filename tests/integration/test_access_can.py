"""`weft can`, asked of a control plane's API."""

from __future__ import annotations

import json

import pytest
from tests.integration import test_control_auth as control
from tests.integration.test_control_auth import Api, weft

from weft.cli.exit_codes import ExitCode
from weft.model.operator import Scope

api = control.api

POLICIES = """
{apiVersion: weft.dev/v1alpha1, kind: AccessPolicy, metadata: {name: locked}, spec: {default: deny}}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: readers}
spec: {effect: allow, from: [{type: editor}], to: [{type: summarizer}], rules: [{paths: [/read/*]}]}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: no-drafts}
spec: {effect: deny, mode: dryRun, rules: [{paths: [/read/drafts]}]}
"""


async def test_it_says_who_decided_and_ends_with_the_answer(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    async with api.client(token=await api.token(Scope.ADMIN)) as admin:
        assert (await admin.post("/v1/resources", json={"manifest": POLICIES})).is_success
    token = await api.token(Scope.VIEWER)
    about = ("--path", "/read/drafts", "--method", "GET")
    assert await weft(api, "can", "editor", "call", "summarizer", *about, token=token) == ExitCode.OK
    assert capsys.readouterr().out.splitlines() == [
        "allowed: editor call summarizer (GET /read/drafts)",
        "  policy 'readers' allows it",
        "  policy 'no-drafts' would have denied it (dry run)",
    ]
    assert await weft(api, "can", "editor", "call", "summarizer", token=token) == ExitCode.FAILED
    assert capsys.readouterr().out.splitlines() == [
        "denied: editor call summarizer (POST /rpc)",
        "  no policy matches, and the mesh-wide default ('locked') is to deny",
        "Other requests may be answered otherwise, by no-drafts, readers:",
        "  ask with --method, --path, --rpc or --tool",
    ]
    assert (
        await weft(api, "can", "editor", "publish", "topic/news", "-o", "json", token=token)
        == ExitCode.FAILED
    )
    assert json.loads(capsys.readouterr().out)["policy"] == "locked"


async def test_a_question_without_sense_is_a_wrong_use(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    token = await api.token(Scope.VIEWER)
    assert await weft(api, "can", "editor", "publish", "summarizer", token=token) == ExitCode.USAGE
    assert "all that one does with it is call" in capsys.readouterr().err
