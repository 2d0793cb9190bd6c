"""A real Prometheus finds everything of a mesh by itself, and answers what rules and the dashboard ask it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.observed import EVERYTHING, observed_mesh, wait_until
from tests.e2e.weft_cli import TIMEOUT, Weft

from weft import Mesh
from weft.local.ports import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
CALLS = 40

PROMETHEUS = shutil.which("prometheus")

pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed (Debian: prometheus)")

SILENT = re.compile(r"nacks_total|spans_dropped")
"""Queries that have no answer in a mesh that is well: nothing is refused there, and nothing lost."""


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


@dataclass
class Sent:
    """What was sent in the mesh, all of it from here."""

    work: int = 0
    tools: int = 0
    models: int = 0


@dataclass(frozen=True)
class Observed:
    """A mesh of one's own, so that Prometheus has to count just what was sent."""

    weft: Weft
    sent: Sent

    def call(self, calls: int = CALLS) -> None:
        """Call the workers, a tool and a model."""
        urls = self.weft.json("status")["urls"]
        asyncio.run(self._call(urls["proxy"], calls))

    async def _call(self, proxy: str, calls: int) -> None:
        async with Mesh(proxy=proxy) as mesh:
            for number in range(calls):
                await mesh.request("worker", "work", call=f"{self.sent.work}-{number}")
            await mesh.call_tool("now")
        async with httpx.AsyncClient(proxy=proxy, trust_env=False, timeout=60) as http:
            body = {"model": "any", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
            answer = await http.post("http://llm.mesh/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
        self.sent.work += calls
        self.sent.tools += 1
        self.sent.models += 1


@pytest.fixture(scope="module")
def observed() -> Iterator[Observed]:
    """A mesh with all that metrics tell of: agents, a tool, models with a price, tasks, one failed."""
    with observed_mesh(*EVERYTHING) as weft:
        pool = weft.json("get", "modelpool", "default")
        for each in pool["spec"]["providers"]:
            each["prices"] = {"input": 1.0, "output": 1.0}
        weft.write("pool.yaml", json.dumps(pool))
        weft.ok("apply", "-f", "pool.yaml")
        weft.ok("task", "submit", "count", "text=one two", "--wait")
        assert weft.run("task", "submit", "fragile", "mended=nowhere", "--wait").returncode == 1
        yield Observed(weft, Sent())


@pytest.fixture(scope="module")
def prometheus(observed: Observed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """With the configuration of the examples, but for the addresses, and how often it scrapes."""
    directory, weft = tmp_path_factory.mktemp("prometheus"), observed.weft
    for each in (DEPLOY / "prometheus").glob("weft.*.yaml"):
        shutil.copy(each, directory)
    (directory / "weft.token").write_text(
        weft.ok("token", "create", "prometheus", "--scope", "viewer").strip()
    )
    (directory / "weft-roots.pem").write_text(weft.ok("identity", "bundle"))
    config = (DEPLOY / "prometheus" / "prometheus.yaml").read_text()
    config = config.replace("https://127.0.0.1:7400", weft.json("status")["urls"]["api"]).replace("15s", "1s")
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
        ("sidecar", "clock.clock-1"),
        ("sidecar", "clerk.clerk-1"),
        ("agent", "clerk.clerk-1"),
        ("agent", "clock.clock-1"),
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


COUNTED = {
    'weft_requests_total{role="sidecar",caller="operator/local",destination="worker",code="200"}': "work",
    'weft_request_duration_seconds_count{role="sidecar",destination="worker"}': "work",
    'weft_tool_calls_total{role="sidecar",tool="now",server="clock",outcome="ok"}': "tools",
    'weft_tool_call_duration_seconds_count{role="sidecar",tool="now"}': "tools",
    'weft_llm_calls_total{role="control",pool="default",outcome="admitted"}': "models",
    'weft_llm_wait_seconds_count{role="control",pool="default"}': "models",
}
"""What is counted, by which of `Sent` it has to be."""


def _counted(prometheus: Prometheus) -> dict[str, float]:
    return {each: prometheus.value(f"sum({each})") for each in COUNTED}


def test_its_counts_are_the_calls_that_were_made(observed: Observed, prometheus: Prometheus) -> None:
    observed.call()
    expected = {each: getattr(observed.sent, what) for each, what in COUNTED.items()}
    wait_until(lambda: _counted(prometheus) == expected, lambda: _counted(prometheus))


def test_queues_are_as_their_tasks_ended(prometheus: Prometheus) -> None:
    tasks = "max by (queue, state) (weft_queue_tasks)"
    dead = 'queue:weft_queue_tasks:max{queue="fragile", state="dead"}'
    wait_until(lambda: prometheus.value(dead) == 1, lambda: prometheus.query(tasks))
    wait_until(lambda: len(prometheus.query(f"{tasks} > 0")) == 1, lambda: prometheus.query(tasks))


def test_what_the_rules_record_is_right(observed: Observed, prometheus: Prometheus) -> None:
    observed.call()
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


def test_every_query_of_the_dashboard_has_an_answer(observed: Observed, prometheus: Prometheus) -> None:
    asked = _dashboard()
    assert len(asked) > 30
    observed.call()

    def silent() -> list[tuple[str, str]]:
        return [each for each in asked if not prometheus.query(each[1])]

    wait_until(lambda: all(SILENT.search(query) for _, query in silent()), silent)
    # Nothing was counted twice since.
    expected = {each: getattr(observed.sent, what) for each, what in COUNTED.items()}
    wait_until(lambda: _counted(prometheus) == expected, lambda: _counted(prometheus))


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
