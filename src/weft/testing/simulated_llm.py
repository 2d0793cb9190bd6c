"""Simulated models in a process of their own, for users' tests."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from pydantic.alias_generators import to_camel

from weft.errors import Unavailable

STOP_TIMEOUT = 10.0
"""Seconds that the process has to end by itself."""

ANSWER_TIMEOUT = 30.0
"""Seconds within which it must answer what is asked of it itself."""

_LISTENS = re.compile(r"http://127\.0\.0\.1:(\d+)/v1")
_MODULE = "weft.llm_sim"
_KEY_VARIABLE = "WEFT_LLM_SIM_KEY"


class SimulatedLLM:
    """A provider of models with OpenAI's API, honest about being simulated, at a port of its own.

        with SimulatedLLM(concurrency=2, first_token="10ms") as llm:
            client = OpenAI(base_url=llm.url, api_key="any")
            ...
            llm.behave(failure_rate=1.0)
            ...
            assert llm.stats()["mostInFlight"] <= 2

    What it can be told is what `weft llm-sim --help` lists. A single request asks for a behaviour of its own
    by a header such as `x-sim-fail: 503`, or by `[[sim answer-tokens=5]]` in its last message. It ends with
    the block, or with the process that started it.
    """

    def __init__(self, *, key: str | None = None, **settings: Any) -> None:
        """`key` is what callers must have; without it anybody may call.

        `settings` are options of `weft llm-sim`, with underscores: `tokens_per_second=0`, `usage=False`.
        """
        self._key = key
        self._command = [sys.executable, "-m", _MODULE, "--port=0", "--stop-with-stdin", *_options(settings)]
        self._stack = ExitStack()
        self._port = 0

    @property
    def url(self) -> str:
        """Its base URL, up to and with `/v1`; there while the block is entered."""
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> Self:
        """Start it, and wait until it listens. Raises Unavailable, with what it said, if it does not."""
        with ExitStack() as stack:
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environ(self._key)
            )
            stack.callback(_stop, process)
            assert process.stdout is not None  # noqa: S101 -- it is a pipe
            said = process.stdout.readline().decode(errors="replace")
            found = _LISTENS.search(said)
            if found is None:
                raise Unavailable(f"the simulated models do not start: {said or 'see standard error'}")
            self._port = int(found[1])
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def stats(self) -> dict[str, Any]:
        """What it counted: `requests`, `inFlight`, `mostInFlight`, `mostTokensPerMinute`, `refused`, ..."""
        stats: dict[str, Any] = self._ask("GET", "/sim/stats")
        return stats

    def reset(self) -> None:
        """Have it count from nothing again, and forget what it has cached."""
        self._ask("POST", "/sim/reset")

    def behave(self, **changes: Any) -> None:
        """Change its behaviour from the next request on: `llm.behave(outage="error")`.

        Raises Unavailable if it does not take that.
        """
        self._ask("POST", "/sim/behaviour", {to_camel(name): value for name, value in changes.items()})

    def requests(self) -> list[dict[str, Any]]:
        """The last requests it got (`method`, `path`, `headers`, `body`): as many as `record` says."""
        requests: list[dict[str, Any]] = self._ask("GET", "/sim/requests")
        return requests

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_TIMEOUT)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(f"the simulated models do not answer: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise Unavailable(f"the simulated models refuse {path}: {answer['error']['message']}")
        return answer


def _options(settings: Mapping[str, Any]) -> list[str]:
    options: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            options.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list | tuple):
            options += [f"--{flag}", *map(str, value)]
        else:
            options.append(f"--{flag}={value}")
    return options


def _environ(key: str | None) -> dict[str, str]:
    """Ours, with the key, which has no place in a command line."""
    own = {name: value for name, value in os.environ.items() if name != _KEY_VARIABLE}
    return own if key is None else {**own, _KEY_VARIABLE: key}


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None  # noqa: S101 -- they are pipes
    assert process.stdout is not None  # noqa: S101
    process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
