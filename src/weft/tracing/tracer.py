"""Who records spans: of sampled traces only, so that all others cost nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from weft.tracing import open_telemetry
from weft.tracing.outlet import Outlet, Send
from weft.tracing.sampling import drawn
from weft.tracing.settings import SERVICE_NAME, TracingSettings
from weft.tracing.span import Kind, RecordedSpan, Span, Value
from weft.tracing.trace_context import TraceContext, is_sampled

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

Describe = Callable[[BaseException], tuple[str, str]]
"""What of an error may be told: its kind (`error.type`), and its message or nothing."""

NOTHING: Final[Mapping[str, Value]] = MappingProxyType({})


def kind_only(error: BaseException) -> tuple[str, str]:
    """The type of an error: its message may hold anything."""
    return type(error).__name__, ""


class Tracer:
    """Records spans of one program, and sends them out."""

    def __init__(self, settings: TracingSettings, send: Send | None, describe: Describe = kind_only) -> None:
        """Without `send` nothing is recorded, unless the program itself uses OpenTelemetry.

        `describe` says what of errors spans may tell.
        """
        self._settings = settings
        self._resource: dict[str, Value] = dict(settings.resource)
        self._describe = describe
        self._outlet = Outlet(send, lambda: self._resource) if send is not None and settings.enabled else None
        self._installation = (
            open_telemetry.Installation(self._outlet, self._resource, settings.sampling)
            if self._outlet is not None
            else None
        )

    def name(self, service: str, version: str = "") -> None:
        """Whose spans they are, where the environment does not say so."""
        self._resource.setdefault(SERVICE_NAME, service)
        if version:
            self._resource.setdefault("service.version", version)

    def root(self, *, sampled: bool | None = None) -> str | None:
        """The `traceparent` of a trace that begins here, sampled as the process was told to, or as `sampled`.

        None if the process was told nothing: then whoever comes next decides.
        """
        if sampled is None:
            sampled = drawn(self._settings.sampling)
            if sampled is None:
                return None
        return TraceContext.root(sampled=sampled).traceparent

    def begin(
        self,
        name: str,
        kind: Kind,
        parent: str | None,
        attributes: Mapping[str, Value] = NOTHING,
        tracestate: str = "",
    ) -> Span | None:
        """A span below the `traceparent` `parent`, to be ended; None where nothing is recorded of its trace.

        Needs a running event loop.
        """
        if not is_sampled(parent):
            return None
        above = TraceContext.parse(parent)
        if above is None:
            return None
        if open_telemetry.in_use() and self._settings.enabled:
            provider = self._provider()
            if provider is not None:
                return open_telemetry.begun(provider, name, kind, above, attributes, tracestate)
        if self._outlet is None:
            return None
        self._outlet.attach()
        return RecordedSpan(name, kind, above, attributes, self._outlet.put, tracestate)

    def _provider(self) -> TracerProvider | None:
        """What makes spans in a program that uses OpenTelemetry; None as long as there is nothing."""
        provider = open_telemetry.current_provider()
        if provider is not None and not open_telemetry.is_own(provider):
            return provider
        if self._outlet is None or self._installation is None:
            return None
        self._outlet.attach()
        if provider is None:
            # Who merely serves an agent beside other things sets what is the process's, or does not.
            if open_telemetry.may_install():
                self._installation.begin()
        else:
            open_telemetry.adopt(self._outlet)
        return provider

    @contextmanager
    def span(
        self,
        name: str,
        kind: Kind,
        parent: str | None,
        attributes: Mapping[str, Value] = NOTHING,
        tracestate: str = "",
    ) -> Iterator[Span | None]:
        """The same for a block, at whose end it ends; what is raised there is its failure."""
        span = self.begin(name, kind, parent, attributes, tracestate)
        if span is None:
            yield None
            return
        try:
            yield span
        except BaseException as error:
            self.failed(span, error)
            raise
        finally:
            span.end()

    def failed(self, span: Span, error: BaseException) -> None:
        """Have `span` tell of `error`. To be cancelled, or not to be read to the end, is no failure."""
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            span.set("weft.cancelled", True)
        else:
            span.fail(*self._describe(error))

    @property
    def sent(self) -> int:
        """Spans that were taken from this process."""
        return self._outlet.sent if self._outlet is not None else 0

    @property
    def dropped(self) -> int:
        """Spans that were lost."""
        return self._outlet.dropped if self._outlet is not None else 0

    async def aclose(self) -> None:
        """Send what is left, within two seconds. Further spans are recorded no more."""
        if self._outlet is not None:
            await self._outlet.aclose()


NO_TRACER: Final = Tracer(TracingSettings(enabled=False), None)
"""Records nothing."""
