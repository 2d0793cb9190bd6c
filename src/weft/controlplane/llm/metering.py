"""What is counted of calls to models while this replica schedules, and told to all the others."""

from __future__ import annotations

import time

from weft.controlplane.llm.call import Call, Ended, LeasedEnds, Usage
from weft.controlplane.llm.figures_record import FiguresRecord, waiting_calls
from weft.controlplane.llm.metrics import LlmMetrics
from weft.controlplane.llm.recent_usage import RecentUsage
from weft.controlplane.llm.standing import Standing
from weft.controlplane.llm.term import Term
from weft.controlplane.llm.usage import charge, highest_price, price
from weft.controlplane.llm.usage_book import UsageBook


class Metering:
    """Rows of usage, rates of late and metrics; with `standing`, where they are written down."""

    def __init__(self, standing: Standing, metrics: LlmMetrics, *, replica: str) -> None:
        self._standing = standing
        self._metrics = metrics
        self._replica = replica
        self._book = UsageBook()
        self._recent = RecentUsage()

    async def begin(self) -> None:
        """Go on from what is written down, for a new term. Raises Unavailable."""
        book = UsageBook()
        book.restore(await self._standing.open_pages(time.time()))
        self._book, self._recent = book, RecentUsage()

    def count(self, term: Term, end: Ended) -> None:
        """Count a call that is over."""
        pool = term.specs.get(end.pool)
        provider = pool.provider(end.provider) if pool is not None and end.provider is not None else None
        charged = charge(end)
        usd = 0.0
        if provider is not None and charged.usage is not None:
            usd = price(provider.prices, charged.usage)
        elif provider is not None:
            usd = highest_price(provider.prices, charged.estimated_tokens)
        self._book.add(end, usd)
        self._recent.add(end, end.ended)
        self._metrics.ended(end, usd)

    def count_all(self, term: Term, ends: LeasedEnds) -> None:
        """Count calls on leases that are over."""
        pool = term.specs.get(ends.pool)
        provider = pool.provider(ends.provider) if pool is not None else None
        usage = Usage(ends.prompt_tokens, ends.completion_tokens, ends.cached_tokens)
        usd = price(provider.prices, usage) if provider is not None else 0.0
        self._book.add_all(ends, usd)
        self._recent.add_all(ends, ends.ended)
        self._metrics.ended_on_leases(ends, usd)

    async def tell(self, term: Term) -> None:
        """Write down how everything stands, and what was used. Raises Unavailable."""
        now = term.now
        figures = [each.figures(now) for each in term.pools.values()]
        budgets = tuple(term.ledger.figures(now))
        self._metrics.show(figures, budgets)
        waiting: dict[str, list[Call]] = {}
        for call in term.waiting:
            waiting.setdefault(call.pool, []).append(call)
        await self._standing.publish(
            FiguresRecord(
                at=now,
                replica=self._replica,
                pools=tuple(figures),
                waiting=tuple(each for calls in waiting.values() for each in waiting_calls(calls)),
                budgets=budgets,
                top=tuple(self._recent.rates(now)),
            )
        )
        await self.write_usage()

    async def write_usage(self) -> None:
        """Write down what was used since the last time. Raises Unavailable."""
        book = self._book
        rows = book.changed()
        try:
            await self._standing.write(rows)
        except BaseException:
            book.not_written(rows)
            raise
