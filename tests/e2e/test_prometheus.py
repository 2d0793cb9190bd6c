"""A real Prometheus finds everything of a mesh by itself, and answers what rules and the dashboard ask it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.observed import wait_until
from tests.e2e.weft_cli import TIMEOUT, Weft

from weft import Mesh
from weft.local.ports import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
CALLS = 40

PROMETHEUS = shutil.which("prometheus")

pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed (Debian: prometheus)")

SILENT = re.compile(r"weft_tool|weft_llm|weft_queue_desired|queue_tasks:max > 0|nacks_total|spans_dropped")
"""Queries that have no answer in this mesh: it has no tools, models, workers of queues, and nothing is lost
there or refused."""


@dataclass(frozen=True)
class Prometheus:
    """One that scrapes the mesh every second."""

    http: httpx.Client

    def get(self, path: str, **query: str) -> Any:
        """What its API answers."""
        answer = self.http.get(f"/api/v1/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that a query gives now."""
        found = self.get("query", query=expression)["result"]
        assert isinstance(found, list)
        return found

    def value(self, expression: str) -> float:
        """The value of a query that gives one; 0 if none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0

    def targets(self) -> list[dict[str, Any]]:
        """What it has found to scrape."""
        return list(self.get("targets", state="active")["activeTargets"])


@pytest.fixture(scope="module")
def prometheus(observed: Weft, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """With the configuration of the examples, but for the addresses, and how often it scrapes."""
    directory = tmp_path_factory.mktemp("prometheus")
    for each in (DEPLOY / "prometheus").glob("weft.*.yaml"):
        shutil.copy(each, directory)
    (directory / "weft.token").write_text(
        observed.ok("token", "create", "prometheus", "--scope", "viewer").strip()
    )
    (directory / "weft-roots.pem").write_text(observed.ok("identity", "bundle"))
    config = (DEPLOY / "prometheus" / "prometheus.yaml").read_text()
    config = config.replace("https://127.0.0.1:7400", observed.json("status")["urls"]["api"]).replace(
        "15s", "1s"
    )
    (directory / "prometheus.yaml").write_text(config)
    port = free_port()
    log = (directory / "log").open("w")
    process = subprocess.Popen(
        [
            str(PROMETHEUS),
            f"--config.file={directory / 'prometheus.yaml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as http:
            wait_until(lambda: process.poll() is None and _ready(http), (directory / "log").read_text)
            yield Prometheus(http)
    finally:
        process.terminate()
        process.wait(TIMEOUT)
        log.close()


def _ready(http: httpx.Client) -> bool:
    try:
        return http.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def _role(target: dict[str, Any]) -> tuple[str, str]:
    return target["labels"]["role"], target["labels"]["instance"]


def test_it_finds_and_scrapes_everything(prometheus: Prometheus) -> None:
    expected = {
        ("control", "control"),
        ("sidecar", "caller.door"),
        *((role, f"worker.worker-{number}") for role in ("sidecar", "agent") for number in (1, 2)),
    }

    def all_up() -> bool:
        up = {_role(each) for each in prometheus.targets() if each["health"] == "up"}
        return up == expected

    wait_until(all_up, prometheus.targets)
    agent = next(each for each in prometheus.targets() if _role(each) == ("agent", "worker.worker-1"))
    assert agent["scrapeUrl"].endswith("/agent/metrics")
    assert {key: agent["labels"][key] for key in ("job", "type", "agent_version")} == {
        "job": "weft",
        "type": "worker",
        "agent_version": "1",
    }


def test_its_counts_are_the_calls_that_were_made(observed: Weft, prometheus: Prometheus) -> None:
    counted = (
        'sum(weft_requests_total{role="sidecar",caller="operator/local",destination="worker",code="200"})'
    )
    seen = 'sum(weft_request_duration_seconds_count{role="sidecar",destination="worker"})'
    wait_until(lambda: prometheus.value('up{instance="caller.door"}') == 1)
    _call(observed, "before", 1)
    # By then Prometheus has what came before: the last scrape tells of a call that the one before did not.
    wait_until(lambda: prometheus.value(counted) > 0)
    before, all_before = _settled(prometheus, counted), prometheus.value(seen)
    _call(observed, "counted", CALLS)
    wait_until(lambda: prometheus.value(counted) >= before + CALLS, lambda: prometheus.value(counted))
    assert _settled(prometheus, counted) == before + CALLS
    wait_until(lambda: prometheus.value(seen) == all_before + CALLS, lambda: prometheus.query(seen))


def _settled(prometheus: Prometheus, expression: str) -> float:
    """A value that has been the same over several scrapes and reports of sidecars."""
    same = f"changes(({expression})[15s:1s]) == 0"
    # What is under way now may not have been told yet: those seconds begin here.
    begin = time.monotonic() + 15

    def settled() -> bool:
        return time.monotonic() > begin and bool(prometheus.query(same))

    wait_until(settled, lambda: prometheus.query(expression))
    return prometheus.value(expression)


def _call(observed: Weft, name: str, calls: int) -> None:
    async def call() -> None:
        async with Mesh(proxy=observed.json("status")["urls"]["proxy"]) as mesh:
            for number in range(calls):
                await mesh.request("worker", "work", call=f"{name}-{number}")

    asyncio.run(call())


def test_what_the_rules_record_is_right(observed: Weft, prometheus: Prometheus) -> None:
    _call(observed, "for-rules", CALLS)
    of_worker = '{destination="worker", kind="agent"}'
    wait_until(lambda: prometheus.value(f"destination:weft_calls:rate5m{of_worker}") > 0)
    assert prometheus.value(f"destination:weft_error_ratio:rate5m{of_worker}") == 0
    wait_until(
        lambda: 0 < prometheus.value(f"destination:weft_request_duration_seconds:p50_5m{of_worker}") < 60
    )
    wait_until(lambda: prometheus.value('type:weft_instances:max{type="worker", status="healthy"}') == 2)
    groups = prometheus.get("rules")["groups"]
    assert {each["name"] for each in groups} >= {"weft-calls", "weft-mesh", "weft-alerts"}
    broken = [rule["name"] for each in groups for rule in each["rules"] if rule["health"] == "err"]
    assert broken == []


def test_nothing_is_alarming_about_a_mesh_that_is_well(prometheus: Prometheus) -> None:
    critical = 'ALERTS{alertstate="firing", severity="critical"}'
    wait_until(lambda: prometheus.query(critical) == [], lambda: prometheus.query(critical))


def _dashboard() -> list[tuple[str, str]]:
    """The title of every panel, with each of its queries, as Grafana would ask them for all there is."""
    panels = json.loads((DEPLOY / "grafana" / "weft.json").read_text())["panels"]
    return [
        (panel["title"], _filled_in(target["expr"]))
        for panel in panels
        for target in panel.get("targets", ())
    ]


def _filled_in(query: str) -> str:
    for variable, value in (("$__rate_interval", "1m"), ("$destination", ".*"), ("$caller", ".*")):
        query = query.replace(variable, value)
    assert "$" not in query
    return query


def test_every_query_of_the_dashboard_has_an_answer(observed: Weft, prometheus: Prometheus) -> None:
    asked = _dashboard()
    assert len(asked) > 30
    _call(observed, "for-the-dashboard", CALLS)

    def silent() -> list[tuple[str, str]]:
        return [each for each in asked if not prometheus.query(each[1])]

    wait_until(lambda: all(SILENT.search(query) for _, query in silent()), silent)


def test_rules_and_alerts_keep_to_their_tests() -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool comes with prometheus"
    rules = DEPLOY / "prometheus"
    for arguments in (
        ["check", "rules", "weft.rules.yaml", "weft.alerts.yaml"],
        ["test", "rules", "weft.test.yaml"],
    ):
        done = subprocess.run(
            [promtool, *arguments], cwd=rules, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test() -> None:
    alerts = re.findall(r"- alert: (\w+)", (DEPLOY / "prometheus" / "weft.alerts.yaml").read_text())
    tests = (DEPLOY / "prometheus" / "weft.test.yaml").read_text()
    assert len(alerts) > 10
    assert [each for each in alerts if not re.search(rf"{each}\n +eval_time: \w+\n +exp_alerts", tests)] == []
