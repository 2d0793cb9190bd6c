"""What is observed of the mesh: spans and traffic, taken in, kept for a while, told."""

try:
    from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans as _ScopeSpans  # noqa: F401
except ImportError as error:
    # xds-protos has older copies of these in the same places: the last one installed stays, by pip above all.
    raise ImportError(
        "xds-protos has overwritten opentelemetry-proto with an older copy: install that once more "
        "(pip install --force-reinstall --no-deps opentelemetry-proto googleapis-common-protos)"
    ) from error
