"""How many spans a second the control plane takes in, what they take up, and how soon they are found.

In a process of its own, on one core: requests as sidecars' Envoys send them are parsed, bound to their
sender, named, looked through for secrets, kept, and made ready for other replicas. The baseline parses the
same requests and writes them again, which is the least that anybody can do with them. Times are of the
processor, so that what else the machine does is not counted, but for searches.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import module_command
from benchmarks.progress import step
from benchmarks.report import Budget, Figure, Result
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from prometheus_client import CollectorRegistry

from weft.controlplane.telemetry.intake import Intake
from weft.controlplane.telemetry.metrics import SpanMetrics
from weft.controlplane.telemetry.redaction import Redaction
from weft.controlplane.telemetry.reporter import Reporter
from weft.controlplane.telemetry.search import Query, search
from weft.controlplane.telemetry.trace_store import TraceStore

SPANS_OF_REQUEST = 256
SPANS_OF_TRACE = 10
SENDERS = 50

_LIMIT = 300.0  # seconds
_TAGS = {
    "node_id": "planner-1",
    "guid:x-request-id": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "http.url": "/rpc",
    "http.method": "POST",
    "downstream_cluster": "-",
    "user_agent": "python",
    "http.protocol": "HTTP/1.1",
    "peer.address": "127.0.0.1",
    "request_size": "120",
    "response_size": "220",
    "component": "proxy",
    "upstream_cluster": "type/summarizer",
    "upstream_cluster.name": "type/summarizer",
    "http.status_code": "200",
    "response_flags": "-",
    "weft.listener": "outbound",
    "weft.destination": "summarizer",
    "weft.cluster": "type/summarizer",
    "weft.route": "default",
    "weft.version": "1",
    "weft.instance": "summarizer-1",
    "weft.attempts": "1",
    "weft.authority": "summarizer.mesh",
}
"""Of a call, as Envoy has them."""


async def measure(*, quick: bool = False) -> Result:
    """In a process of its own: 100,000 spans, or 25,000."""
    step("traces: spans taken in")
    command = [*module_command("benchmarks.trace_intake"), str(100 if quick else 400)]
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(_LIMIT):
        told, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError("the process that takes spans in failed")
    found = json.loads(told)
    figures = (
        Figure(
            "taken in",
            found["rate"],
            "spans/s on one core",
            found["parsed"],
            "parsing and writing alone",
            Budget(10_000, at_most=False),
        ),
        Figure("kept", found["memory"], "MB for 100,000 spans", found["sent"], "as they were sent"),
        Figure("the loop is kept from all else, at most", found["held"], "ms", budget=Budget(50)),
        Figure("likewise, at the 99th percentile", found["held_p99"], "ms"),
        Figure(f"{found['traces']:,} traces searched to the last", found["search"], "ms"),
        Figure("the first 50 of them", found["page"], "ms"),
    )
    return Result("Spans taken in by the control plane", figures)


def _requests(count: int) -> list[bytes]:
    chance = random.Random(7)
    trace = b""
    requests = []
    for number in range(count):
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        group.resource.attributes.append(_attribute("service.name", f"planner-{number % SENDERS}"))
        scope = group.scope_spans.add()
        for place in range(SPANS_OF_REQUEST):
            if (number * SPANS_OF_REQUEST + place) % SPANS_OF_TRACE == 0:
                trace = chance.randbytes(16)
            begun = time.time_ns()
            span = scope.spans.add(
                trace_id=trace,
                span_id=chance.randbytes(8),
                parent_span_id=chance.randbytes(8),
                name="outbound default",
                start_time_unix_nano=begun,
                end_time_unix_nano=begun + 3_000_000,
            )
            span.attributes.extend([_attribute(*each) for each in _TAGS.items()])
            span.attributes.append(_attribute("weft.context", f"c-{chance.randrange(1000)}"))
        requests.append(request.SerializeToString())
    return requests


def _attribute(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def _resident() -> int:
    """Bytes of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _parsed(requests: list[bytes]) -> float:
    """Spans a second that are parsed and written again."""
    began = time.process_time()
    for data in requests:
        for group in ExportTraceServiceRequest.FromString(data).resource_spans:
            for scope in group.scope_spans:
                for span in scope.spans:
                    span.SerializeToString()
    return len(requests) * SPANS_OF_REQUEST / (time.process_time() - began)


async def _watch(held: list[float]) -> None:
    """Note for how long the loop does something else."""
    while True:
        began = time.thread_time()
        await asyncio.sleep(0)
        held.append(time.thread_time() - began)


async def _taken(requests: list[bytes]) -> dict[str, Any]:
    metrics = SpanMetrics(CollectorRegistry())
    store = TraceStore(metrics, limit=1 << 34, age=3600.0)
    redaction = Redaction()
    intake = Intake(lambda: redaction, lambda piece: store.add(piece.spans), metrics)
    gc.collect()
    before, held = _resident(), list[float]()
    watching = asyncio.create_task(_watch(held))
    began = time.process_time()
    for number, data in enumerate(requests):
        identity = f"spiffe://weft.local/agent/planner/{number % SENDERS}"
        reporter = Reporter(identity, "planner", f"{number % SENDERS}", is_envoy=True)
        await intake.take(ExportTraceServiceRequest.FromString(data).resource_spans, len(data), reporter)
    taken = time.process_time() - began
    watching.cancel()
    gc.collect()
    spans = len(requests) * SPANS_OF_REQUEST
    held.sort()
    return {
        "rate": spans / taken,
        "memory": (_resident() - before) / spans * 1e5 / 1e6,
        "held": held[-1] * 1e3,
        "held_p99": held[int(len(held) * 0.99)] * 1e3,
        "traces": store.kept.traces,
        "page": await _searched(store, Query(), 50),
        "search": await _searched(store, Query(text="nowhere to be found"), 50),
    }


async def _searched(store: TraceStore, query: Query, limit: int) -> float:
    began = time.perf_counter()
    await search(store, query, limit=limit)
    return (time.perf_counter() - began) * 1e3


def main(count: int) -> None:
    """Take in that many requests, and print what was found."""
    requests = _requests(count)
    parsed = _parsed(requests)
    sent = sum(map(len, requests)) / (count * SPANS_OF_REQUEST) * 1e5 / 1e6
    found = asyncio.run(_taken(requests))
    print(json.dumps({**found, "parsed": parsed, "sent": sent}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
