"""The message of the cluster `envoy.clusters.composite`, which our protos do not have yet.

Envoy takes it in no other form: not as a TypedStruct, as it would a filter's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_PACKAGE = "envoy.extensions.clusters.composite.v3"
_TYPE = f"{_PACKAGE}.ClusterConfig"


def composite_of(clusters: Iterable[str]) -> AnyMessage:
    """A cluster of which attempt 1 goes to the first of `clusters`, attempt 2 to the second, and so on."""
    message = _MESSAGE()
    for each in clusters:
        message.clusters.add(name=each)
    result = AnyMessage()
    result.Pack(message)
    return result


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="weft/composite_cluster.proto", package=_PACKAGE, syntax="proto3")
    config = file.message_type.add(name="ClusterConfig")
    entry = config.nested_type.add(name="ClusterEntry")
    entry.field.add(
        name="name",
        number=1,
        type=FieldDescriptorProto.TYPE_STRING,
        label=FieldDescriptorProto.LABEL_OPTIONAL,
    )
    config.field.add(
        name="clusters",
        number=1,
        type=FieldDescriptorProto.TYPE_MESSAGE,
        label=FieldDescriptorProto.LABEL_REPEATED,
        type_name=f".{_TYPE}.ClusterEntry",
    )
    return file


def _message() -> Any:
    # In a pool of its own, so that it does not clash with the protos' own when they have it.
    pool = DescriptorPool()
    pool.Add(_file())
    return GetMessageClass(pool.FindMessageTypeByName(_TYPE))


_MESSAGE = _message()
