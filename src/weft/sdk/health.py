"""How an agent is: what its author's checks say."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable

HealthCheck = Callable[[], Awaitable[object] | object]
"""Says no by raising, or by returning False. A plain function must not block: it runs in the event loop."""

CHECK_TIMEOUT = 2.0
"""Seconds a check may take: as long as a sidecar waits for the answer by default."""


async def failing_checks(checks: Iterable[HealthCheck]) -> str:
    """Run `checks` and return why they say no; empty if none does."""
    reasons = await asyncio.gather(*(_reason(check) for check in checks))
    return "; ".join(filter(None, reasons))


async def _reason(check: HealthCheck) -> str:
    name = getattr(check, "__name__", "check")
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            result = check()
            verdict = await result if inspect.isawaitable(result) else result
    except TimeoutError:
        return f"{name}: no answer within {CHECK_TIMEOUT:g} seconds"
    except Exception as error:  # noqa: BLE001 - whatever an author's check raises is its answer
        return f"{name}: {str(error) or type(error).__name__}"
    return f"{name}: it says no" if verdict is False else ""
