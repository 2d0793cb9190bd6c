"""What webhooks are asked, and what they answer, for Prometheus."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

from weft.kubernetes.webhook.admission import Verdict

NOT_UNDERSTOOD: Final = "not-understood"
"""As an outcome: the question was none, or came too late, or one too many."""


class ReviewMetrics:
    """Counts questions."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._reviews = Counter(
            "weft_webhook_reviews",
            "Questions to a webhook, by its path and by what came of them.",
            ("webhook", "outcome"),
            registry=self._registry,
        )

    def reviewed(self, webhook: str, verdict: Verdict | None) -> None:
        """Count a question to the webhook at that path; without `verdict`, one that was not understood."""
        if verdict is None:
            outcome = NOT_UNDERSTOOD
        elif not verdict.allowed:
            outcome = "refused"
        else:
            outcome = "changed" if verdict.patch else "taken"
        self._reviews.labels(webhook, outcome).inc()

    def page(self) -> web.Response:
        """As Prometheus reads it."""
        text = generate_latest(self._registry)  # type: ignore[no-untyped-call]
        return web.Response(body=text, headers={"content-type": CONTENT_TYPE_LATEST})
