"""Figures of the scheduling of calls to models, for Prometheus.

| metric | kind | what |
|---|---|---|
| `weft_llm_calls_total{pool,outcome}` | counter | calls that asked: `admitted`, or why they were refused |
| `weft_llm_wait_seconds{pool}` | histogram | from the asking to the admission or the refusal |
| `weft_llm_waiting{pool}` | gauge | calls that wait now |
| `weft_llm_under_way{pool,provider}` | gauge | calls under way at a provider, without those on leases |
| `weft_llm_contended{pool}` | gauge | 1 while calls wait, so that nothing is leased |
| `weft_llm_leases{pool}` | gauge | sidecars that hold a lease |
| `weft_llm_ended_total{pool,leased}` | counter | calls that ended; on a lease: `true` |
| `weft_llm_tokens_total{pool,tenant,kind}` | counter | tokens used: `prompt`, `completion`, or `estimated` |
| `weft_llm_cost_usd_total{pool,tenant}` | counter | what they cost by the prices that are declared |
| `weft_llm_budget_share{budget,scope}` | gauge | how much of its limit its fullest account has used |
| `weft_llm_budget_spent_usd{budget,scope}` | gauge | spent in the present period, all accounts together |
| `weft_llm_budget_spent_tokens{budget,scope}` | gauge | likewise |
| `weft_llm_attempts_failed_total{pool,provider,status}` | counter | failed attempts; `0`: no answer |
| `weft_llm_leading` | gauge | 1 on the replica that schedules |

All but the last are those of the replica that schedules. Pools and providers are bounded by what is declared;
`tenant` has MAX_TENANTS values in each pool, those that came first, and `(other)`. A share of 1
is a limit that is reached; of budgets the 500 accounts nearest to their limits are looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from weft.controlplane.llm.budget_figures import BudgetFigures
from weft.controlplane.llm.call import Attempt, Ended, LeasedEnds, Reason
from weft.controlplane.llm.figures import PoolFigures
from weft.controlplane.llm.usage import charge

MAX_TENANTS: Final = 100
"""Of one pool."""

OTHERS: Final = "(other)"

_WAIT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
"""Seconds."""

_ADMITTED = "admitted"


class LlmMetrics:
    """The metrics of one replica, registered with `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Raises ValueError if `registry` has them already."""
        self._calls = Counter(
            "weft_llm_calls_total",
            "Calls to models that asked: admitted, or why they were refused.",
            ["pool", "outcome"],
            registry=registry,
        )
        self._wait = Histogram(
            "weft_llm_wait_seconds",
            "Seconds from the asking to the admission or the refusal.",
            ["pool"],
            buckets=_WAIT_BUCKETS,
            registry=registry,
        )
        self._waiting = Gauge("weft_llm_waiting", "Calls that wait now.", ["pool"], registry=registry)
        self._under_way = Gauge(
            "weft_llm_under_way",
            "Calls under way at a provider, without those on leases.",
            ["pool", "provider"],
            registry=registry,
        )
        self._contended = Gauge(
            "weft_llm_contended",
            "1 while calls wait, so that nothing is leased.",
            ["pool"],
            registry=registry,
        )
        self._leases = Gauge("weft_llm_leases", "Sidecars that hold a lease.", ["pool"], registry=registry)
        self._ended = Counter(
            "weft_llm_ended_total", "Calls to models that ended.", ["pool", "leased"], registry=registry
        )
        self._tokens = Counter(
            "weft_llm_tokens_total", "Tokens used.", ["pool", "tenant", "kind"], registry=registry
        )
        self._cost = Counter(
            "weft_llm_cost_usd_total",
            "What calls to models cost, by the prices that are declared.",
            ["pool", "tenant"],
            registry=registry,
        )
        self._budgets = BudgetGauges(registry)
        self._failed = Counter(
            "weft_llm_attempts_failed_total",
            "Attempts at providers that failed; status 0: no answer.",
            ["pool", "provider", "status"],
            registry=registry,
        )
        self._leading = Gauge("weft_llm_leading", "1 on the replica that schedules.", registry=registry)
        self._tenants: dict[str, set[str]] = {}
        self._counted: dict[tuple[str, ...], Counter] = {}
        """Counters by metric and labels: to find one takes longer than to count."""
        self._waits: dict[str, Histogram] = {}
        self._shown: dict[str, PoolFigures] = {}

    def admitted(self, pool: str, waited: float) -> None:
        """A call may start, `waited` seconds after it asked."""
        self._count("calls", self._calls, pool, _ADMITTED)
        self._waited(pool, waited)

    def refused(self, pool: str, reason: Reason, waited: float) -> None:
        """A call may not start."""
        self._calls.labels(pool, reason.value).inc()
        self._waited(pool, waited)

    def ended(self, end: Ended, usd: float) -> None:
        """A call is over that cost `usd`."""
        self._count("ended", self._ended, end.pool, "true" if end.call_id is None else "false")
        tenant = self._tenant(end.pool, end.tenant)
        self._spend(end.pool, tenant, usd)
        charged = charge(end)
        if charged.usage is not None:
            self._count("tokens", self._tokens, end.pool, tenant, "prompt", by=charged.usage.prompt_tokens)
            self._count(
                "tokens", self._tokens, end.pool, tenant, "completion", by=charged.usage.completion_tokens
            )
        elif charged.estimated_tokens:
            self._count("tokens", self._tokens, end.pool, tenant, "estimated", by=charged.estimated_tokens)

    def ended_on_leases(self, ends: LeasedEnds, usd: float) -> None:
        """Calls on leases are over, which ended well and cost `usd` together."""
        tenant = self._tenant(ends.pool, ends.tenant)
        self._spend(ends.pool, tenant, usd)
        self._count("ended", self._ended, ends.pool, "true", by=ends.calls)
        self._count("tokens", self._tokens, ends.pool, tenant, "prompt", by=ends.prompt_tokens)
        self._count("tokens", self._tokens, ends.pool, tenant, "completion", by=ends.completion_tokens)

    def attempt_failed(self, attempt: Attempt) -> None:
        """A provider failed."""
        self._failed.labels(attempt.pool, attempt.provider, str(attempt.status)).inc()

    def lead(self, leading: bool) -> None:
        """Whether this replica schedules; one that does not shows nothing of how pools stand."""
        self._leading.set(leading)
        if not leading:
            for name in list(self._shown):
                self._forget(name)
            self._budgets.show(())

    def show(self, pools: list[PoolFigures], budgets: Sequence[BudgetFigures]) -> None:
        """How all pools and budgets stand now."""
        self._budgets.show(budgets)
        for gone in self._shown.keys() - {each.pool for each in pools}:
            self._forget(gone)
        for each in pools:
            self._show(each)

    def _show(self, figures: PoolFigures) -> None:
        pool = figures.pool
        before = self._shown.get(pool)
        self._shown[pool] = figures
        self._waiting.labels(pool).set(sum(each.calls for each in figures.waiting))
        self._contended.labels(pool).set(figures.contended)
        self._leases.labels(pool).set(sum(each.granted_requests > 0 for each in figures.leases.values()))
        providers = {each.name: each.under_way for each in figures.providers}
        for name, under_way in providers.items():
            self._under_way.labels(pool, name).set(under_way)
        for gone in {each.name for each in before.providers} - providers.keys() if before else ():
            self._under_way.remove(pool, gone)

    def _forget(self, pool: str) -> None:
        for each in self._shown.pop(pool).providers:
            self._under_way.remove(pool, each.name)
        for metric in (self._waiting, self._contended, self._leases):
            metric.remove(pool)

    def _spend(self, pool: str, tenant: str, usd: float) -> None:
        if usd > 0:
            self._cost.labels(pool, tenant).inc(usd)

    def _waited(self, pool: str, seconds: float) -> None:
        histogram = self._waits.get(pool)
        if histogram is None:
            histogram = self._waits[pool] = self._wait.labels(pool)
        histogram.observe(seconds)

    def _count(self, name: str, metric: Counter, *labels: str, by: int = 1) -> None:
        key = (name, *labels)
        counter = self._counted.get(key)
        if counter is None:
            counter = self._counted[key] = metric.labels(*labels)
        counter.inc(by)

    def _tenant(self, pool: str, tenant: str) -> str:
        known = self._tenants.setdefault(pool, set())
        if tenant not in known:
            if len(known) >= MAX_TENANTS:
                return OTHERS
            known.add(tenant)
        return tenant


class BudgetGauges:
    """How budgets stand, the accounts of each together."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Raises ValueError if `registry` has them already."""
        labels = ["budget", "scope"]
        self._share = Gauge(
            "weft_llm_budget_share",
            "How much of its limit the fullest account of a budget has used.",
            labels,
            registry=registry,
        )
        self._usd = Gauge(
            "weft_llm_budget_spent_usd", "Spent in the present period.", labels, registry=registry
        )
        self._tokens = Gauge(
            "weft_llm_budget_spent_tokens", "Used in the present period.", labels, registry=registry
        )
        self._shown: set[tuple[str, str]] = set()

    def show(self, budgets: Iterable[BudgetFigures]) -> None:
        """All budgets, as they stand now."""
        share: dict[tuple[str, str], float] = {}
        usd: defaultdict[tuple[str, str], float] = defaultdict(float)
        tokens: defaultdict[tuple[str, str], int] = defaultdict(int)
        for each in budgets:
            of = (each.budget, each.scope.value)
            share[of] = max(share.get(of, 0.0), each.share)
            usd[of] += each.spent_usd
            tokens[of] += each.spent_tokens
        for gone in self._shown - share.keys():
            for gauge in (self._share, self._usd, self._tokens):
                gauge.remove(*gone)
        self._shown = set(share)
        for of, most in share.items():
            self._share.labels(*of).set(most)
            self._usd.labels(*of).set(usd[of])
            self._tokens.labels(*of).set(tokens[of])
