"""A mesh from `weft up` to `weft down`, through the commands a user has."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from tests.e2e.weft_cli import EXAMPLES, PAUSE, TIMEOUT, Weft, agent_manifest, weft_user

from weft.identity.keys import new_key, signing_request

HELLO = EXAMPLES / "hello_agent.py"

ROUTE = """apiVersion: weft.dev/v1alpha1
kind: Route
metadata: {name: summarizer}
spec:
  destination: {type: summarizer}
  rules:
  - timeout: 10s
"""


LEDGER = """apiVersion: weft.dev/v1alpha1
kind: ExternalAgent
metadata: {name: ledger}
spec: {endpoints: ["127.0.0.1:PORT"], capabilities: [book]}
---
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: no-secrets}
spec:
  effect: deny
  from: [{operator: local}]
  to: [{type: ledger}]
  rules: [{paths: ["/secret/*"]}]
"""


@pytest.fixture(scope="module")
def weft() -> Iterator[Weft]:
    """A user whose mesh runs two summarizers (with the SDK), a streaming agent and a foreign one."""
    with weft_user() as user:
        parts = [
            agent_manifest("summarizer", HELLO, replicas=2, capability="summarize"),
            agent_manifest("chatter", EXAMPLES / "stream_agent.py"),
            agent_manifest("counter", EXAMPLES / "foreign_agent.py", capability="count"),
        ]
        user.write("mesh.yaml", "---\n".join(parts))
        said = user.up()
        assert "2 summarizer" in said
        yield user
        user.ok("down")


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(PAUSE)


def _instances(weft: Weft, agent_type: str = "summarizer") -> dict[str, str]:
    return {each["id"]: each["status"] for each in weft.json("agents", agent_type)}


def test_status_lists_every_process(weft: Weft) -> None:
    state = weft.json("status")
    names = {"nats", "control", "door", "llm-sim", "summarizer-1", "summarizer-2", "chatter-1", "counter-1"}
    assert {each["name"] for each in state["children"]} == names
    assert {each["phase"] for each in state["children"]} == {"ready"}
    assert state["ready"] is True
    shown = weft.ok("status")
    assert all(name in shown for name in names)


def test_agents_are_listed_and_filtered(weft: Weft) -> None:
    everyone = weft.json("agents")
    assert {each["type"] for each in everyone} == {"summarizer", "chatter", "counter"}
    assert _instances(weft) == {"summarizer-1": "healthy", "summarizer-2": "healthy"}
    assert [each["id"] for each in weft.json("agents", "--capability", "count")] == ["counter-1"]
    assert weft.json("agents", "--status", "draining") == []
    assert len(weft.json("agents", "--limit", "2")) == 2
    assert "summarizer-2" in weft.ok("agents", "summarizer")


def test_nobody_gets_a_key_for_an_identity_through_the_sidecar_that_holds_it(weft: Weft) -> None:
    body = json.dumps({"csr": signing_request(new_key(), None).decode()})
    request = Request("http://control.mesh/v1/identity/renewal", body.encode())
    request.add_header("content-type", "application/json")
    door = build_opener(ProxyHandler({"http": weft.json("status")["urls"]["proxy"]}))
    with pytest.raises(HTTPError) as refusal:
        door.open(request, timeout=TIMEOUT)
    refusal.value.close()
    assert refusal.value.code == 403
    last = weft.json("audit", "--limit", "1")[0]
    assert (last["action"], last["outcome"]) == ("call api", "denied")
    assert last["target"] == "POST /v1/identity/renewal"


def test_tokens_are_made_used_and_revoked(weft: Weft) -> None:
    token = weft.ok("token", "create", "ci", "--scope", "viewer").strip()
    file = weft.write("ci-token", token)
    file.chmod(0o600)
    assert weft.run("get", "agents", "--token-file", str(file)).returncode == 0
    assert weft.run("delete", "agent", "counter", "--token-file", str(file)).returncode == 8
    weft.ok("token", "revoke", "ci")
    assert weft.run("get", "agents", "--token-file", str(file)).returncode == 8
    audit = [(each["who"], each["action"], each["outcome"]) for each in weft.json("audit")]
    assert ("operator/local", "make token", "done") in audit
    assert ("operator/ci", "call api", "denied") in audit
    assert ("operator/local", "revoke token", "done") in audit


def test_agents_are_discovered_by_capability(weft: Weft) -> None:
    found = weft.json("discover", "--capability", "summarize")
    assert {each["id"] for each in found} == {"summarizer-1", "summarizer-2"}
    assert weft.json("discover", "--capability", "summarize", "--capability", "count") == []
    nobody = weft.run("discover", "nobody")
    assert (nobody.returncode, nobody.stdout) == (0, "")
    assert "no healthy agent" in nobody.stderr


@pytest.mark.parametrize("target", ["summarizer", "cap:summarize", "summarizer-2.summarizer"])
def test_an_agent_is_called_by_type_capability_and_instance(weft: Weft, target: str) -> None:
    assert weft.ok("call", target, "summarize", "text=one two three four", "length:=2") == "one two ...\n"


def test_a_payload_comes_from_a_file_or_standard_input(weft: Weft) -> None:
    weft.write("request.json", json.dumps({"text": "one two three", "length": 1}))
    assert weft.ok("call", "summarizer", "summarize", "--data", "@request.json") == "one ...\n"
    assert weft.ok("call", "summarizer", "summarize", "--data", "-", stdin='{"text": "one"}') == "one\n"


def test_a_stream_is_printed_item_by_item(weft: Weft) -> None:
    assert weft.ok("call", "chatter", "chat", "prompt=to be or", "--stream") == "to\nbe\nor\n"


def test_a_foreign_agent_is_called_by_kind_and_by_path(weft: Weft) -> None:
    assert weft.json("call", "counter", "count", "text=a b c") == 3
    assert json.loads(weft.ok("call", "counter", "--path", "/health")) == {"status": "healthy"}
    missing = weft.run("call", "counter", "--path", "/missing")
    assert missing.returncode == 1
    assert "weft: " in missing.stderr


class _Ledger(BaseHTTPRequestHandler):
    """A server that knows nothing of a mesh."""

    def do_GET(self) -> None:
        body = json.dumps({"host": self.headers["host"], "path": self.path}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def _serving() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Ledger) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_a_server_without_a_sidecar_is_called_as_an_agent_where_policies_let(weft: Weft) -> None:
    with _serving() as port:
        weft.ok("apply", "-f", "-", stdin=LEDGER.replace("PORT", str(port)))
        _wait_until(lambda: weft.run("call", "ledger", "--path", "/entries").returncode == 0)
        heard = weft.json("call", "cap:book", "--path", "/entries")
        assert heard == {"host": "book.cap.mesh", "path": "/entries"}
        [listed] = weft.json("agents", "ledger")
        assert (listed["status"], listed["endpoint"]) == ("external", f"127.0.0.1:{port}")
        denied = weft.run("call", "ledger", "--path", "/secret/entries")
        assert denied.returncode == 8
        assert "AccessPolicy 'no-secrets' denies it" in denied.stderr
        assert (
            weft.run("can", "operator/local", "call", "ledger", "--path", "/secret/entries").returncode == 1
        )
    weft.ok("delete", "-f", "-", stdin=LEDGER.replace("PORT", str(port)))


def test_any_a2a_server_joins_and_is_found_by_its_card(weft: Weft) -> None:
    examples = EXAMPLES / "a2a"
    joining = ("run", "--type", "words", "--protocol", "a2a", "--")
    server = weft.start(*joining, sys.executable, str(examples / "words.py"))
    try:
        _wait_until(
            lambda: weft.json("cards", "counts", "--tag", "counting") != [] or server.poll() is not None
        )
        assert server.poll() is None
        card = json.loads(weft.ok("card", "words"))
        assert [each["url"] for each in card["supportedInterfaces"]] == ["http://words.mesh/"]
        assert weft.run("card", "counter").returncode == 4
        asked = weft.ok("run", "--", sys.executable, str(examples / "ask.py"), "to be or not")
        assert "4 words" in asked.splitlines()
    finally:
        server.terminate()
        server.communicate(timeout=TIMEOUT)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nobody", "ask"], 4, "nobody"),
        (["summarizer", "sing"], 4, "summarize-all"),
        (["summarizer", "summarize", "txt=x"], 2, "text"),
        (["summarizer", "summarize", "text="], 1, "nothing to summarize"),
        (["summarizer-9.summarizer", "summarize", "text=x"], 6, "summarizer"),
    ],
    ids=["no-such-agent", "no-such-kind", "wrong-arguments", "agent-s-own-error", "no-such-instance"],
)
def test_a_call_that_fails_says_why_with_its_exit_code(
    weft: Weft, arguments: list[str], code: int, said: str
) -> None:
    done = weft.run("call", *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr


def test_a_script_reaches_the_mesh_through_its_door_without_being_told_where_it_is(weft: Weft) -> None:
    script = (
        "import asyncio; from weft import Mesh\n"
        "async def main():\n"
        "    async with Mesh() as mesh:\n"
        "        print(await mesh.request('summarizer', 'summarize', text='a b c', length=1))\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
        env=weft.environ,
    )
    assert done.stdout == "a ...\n"


def test_resources_are_applied_shown_compared_and_deleted(weft: Weft) -> None:
    weft.write("route.yaml", ROUTE)
    assert weft.run("diff", "-f", "route.yaml").returncode == 1
    assert "created (dry run)" in weft.ok("apply", "-f", "route.yaml", "--dry-run")
    assert weft.json("get", "routes") == []
    assert weft.ok("apply", "-f", "route.yaml") == "Route/summarizer created\n"
    assert weft.ok("apply", "-f", "-", stdin=ROUTE) == "Route/summarizer unchanged\n"
    assert (weft.ok("diff", "-f", "route.yaml"), weft.json("diff", "-f", "route.yaml")) == ("", [])

    weft.write("route.yaml", ROUTE.replace("10s", "20s"))
    changed = weft.run("diff", "-f", "route.yaml")
    assert changed.returncode == 1
    assert "-  - timeout: 10s" in changed.stdout
    assert "+  - timeout: 20s" in changed.stdout

    assert "summarizer" in weft.ok("get", "routes")
    shown = weft.ok("get", "route", "summarizer", "-o", "yaml")
    assert weft.ok("apply", "-f", "-", stdin=shown) == "Route/summarizer unchanged\n"
    assert weft.json("describe", "agent", "summarizer")["routes"] == ["summarizer"]

    assert "deleted" in weft.ok("delete", "-f", "route.yaml")
    gone = weft.run("delete", "route", "summarizer")
    assert gone.returncode == 4
    assert "summarizer" in gone.stderr


def test_an_agent_is_described_with_its_instances_and_their_configuration(weft: Weft) -> None:
    told = weft.json("describe", "agent", "summarizer")
    assert told["resource"]["spec"]["capabilities"] == ["summarize"]
    assert {each["id"] for each in told["instances"]} == {"summarizer-1", "summarizer-2"}
    assert all(each["sync"]["inSync"] for each in told["instances"])
    shown = weft.ok("describe", "agent", "summarizer")
    assert "kind: Agent" in shown
    assert "in sync" in shown
    assert weft.run("describe", "agent", "nobody").returncode == 4


def test_a_wrong_manifest_changes_nothing_and_every_mistake_has_its_file_line_and_field(weft: Weft) -> None:
    wrong = ROUTE.replace("10s", "soon").replace(
        "metadata: {name: summarizer}", "metadata: {name: Not A Name}"
    )
    weft.write("wrong.yaml", ROUTE.replace("name: summarizer", "name: fine") + "---\n" + wrong)
    done = weft.run("apply", "-f", "wrong.yaml")
    assert done.returncode == 2
    assert "wrong.yaml:11: metadata.name:" in done.stderr
    assert "wrong.yaml:15: spec.rules[0].timeout:" in done.stderr
    assert weft.json("get", "routes") == []
    errors = json.loads(weft.run("apply", "-f", "wrong.yaml", "-o", "json").stderr)["errors"]
    assert {(each["file"], each["line"]) for each in errors} == {("wrong.yaml", 11), ("wrong.yaml", 15)}


def test_applying_other_replicas_scales(weft: Weft) -> None:
    def scale(replicas: int) -> None:
        manifest = agent_manifest("summarizer", HELLO, replicas=replicas, capability="summarize")
        assert weft.ok("apply", "-f", "-", stdin=manifest) == "Agent/summarizer configured\n"
        expected = {f"summarizer-{index}": "healthy" for index in range(1, replicas + 1)}
        _wait_until(lambda: _instances(weft) == expected)

    scale(3)
    scale(2)


def test_a_changed_agent_is_replaced_one_by_one_while_calls_go_on(weft: Weft) -> None:
    before = {each["id"]: each["startedAt"] for each in weft.json("agents", "summarizer")}
    manifest = agent_manifest("summarizer", HELLO, replicas=2, capability="summarize", CHANGED="yes")
    weft.ok("apply", "-f", "-", stdin=manifest)

    def replaced() -> bool:
        weft.ok("call", "summarizer", "summarize", "text=still here")
        agents = weft.json("agents", "summarizer")
        new = [each for each in agents if each["startedAt"] > max(before.values())]
        return len(new) == len(agents) == 2 and all(each["status"] == "healthy" for each in agents)

    _wait_until(replaced)


def test_an_agent_that_was_killed_comes_back(weft: Weft) -> None:
    def child() -> dict[str, object]:
        found: dict[str, object] = next(
            each for each in weft.json("status")["children"] if each["name"] == "counter-1"
        )
        return found

    before = child()["pid"]
    sidecar = next(each for each in weft.processes() if each.pid == before)
    sidecar.kill()
    _wait_until(lambda: child()["phase"] == "ready" and child()["pid"] != before)
    assert child()["restarts"] == 1
    _wait_until(lambda: weft.run("call", "counter", "count", "text=a b").stdout == "2\n")


@pytest.mark.parametrize("name", ["control", "nats", "door"])
def test_calls_go_on_after_a_part_of_the_mesh_was_killed(weft: Weft, name: str) -> None:
    def child() -> dict[str, object]:
        found: dict[str, object] = next(
            each for each in weft.json("status")["children"] if each["name"] == name
        )
        return found

    before = child()["pid"]
    next(each for each in weft.processes() if each.pid == before).kill()
    _wait_until(lambda: child()["phase"] == "ready" and child()["pid"] != before)
    _wait_until(lambda: weft.run("call", "counter", "count", "text=a b").stdout == "2\n")
    _wait_until(lambda: weft.run("agents").returncode == 0 and "healthy" in set(_instances(weft).values()))


def test_a_deleted_agent_stops(weft: Weft) -> None:
    weft.ok("apply", "-f", "-", stdin=agent_manifest("shortlived", EXAMPLES / "foreign_agent.py"))
    _wait_until(lambda: _instances(weft, "shortlived") == {"shortlived-1": "healthy"})
    weft.ok("delete", "agent", "shortlived")
    _wait_until(lambda: weft.json("agents", "shortlived") == [])
    _wait_until(lambda: "shortlived-1" not in {each["name"] for each in weft.json("status")["children"]})


def test_run_joins_a_program_and_returns_its_exit_code(weft: Weft) -> None:
    ask = "urllib.request.urlopen('http://counter.mesh/health').read()"
    script = f"import sys, urllib.request; print({ask}); sys.exit(42)"
    done = weft.run("run", "--", sys.executable, "-c", script)
    assert done.returncode == 42, done.stderr
    assert '"healthy"' in done.stdout


def test_a_second_instance_of_the_same_name_is_refused(weft: Weft) -> None:
    done = weft.run("run", "--type", "counter", "--id", "counter-1", "--", sys.executable, "-c", "input()")
    assert done.returncode == 73, done.stderr
    assert "counter-1" in done.stderr


def test_a_mesh_that_runs_is_not_started_again(weft: Weft) -> None:
    for detach in ([], ["-d"]):
        done = weft.run("up", "--port-base", "0", *detach)
        assert done.returncode == 5
        assert "running already" in done.stderr
