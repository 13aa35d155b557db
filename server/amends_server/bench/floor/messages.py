"""The floor's messages and services, described here, so that nothing has to be generated.

They hold what no saga can do without: who, which step, under which key, the payload, and whether it went well.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_KINDS = {
    "int": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "text": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
}

_FIELDS = {
    "Call": {"id": "int", "saga_id": "text", "step": "text", "key": "text", "payload": "bytes"},
    "Calls": {"items": "Call"},
    "Reply": {"id": "int", "status": "int", "payload": "bytes"},
    "Replies": {"items": "Reply"},
    "Start": {"saga_id": "text", "payload": "bytes"},
    "Starts": {"items": "Start"},
    "End": {"saga_id": "text", "status": "int"},
    "Ends": {"items": "End"},
}


def _described() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="bench/floor.proto", package="bench.floor", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            one = message.field.add(name=field, number=number, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
            if kind in _KINDS:
                one.type = _KINDS[kind]
            else:
                one.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
                one.type_name = f".bench.floor.{kind}"
                one.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_described())


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"bench.floor.{name}"))


Call, Calls, Reply, Replies = _class("Call"), _class("Calls"), _class("Reply"), _class("Replies")
Start, Starts, End, Ends = _class("Start"), _class("Starts"), _class("End"), _class("Ends")

EXECUTE = "/bench.floor.Participant/Execute"
CALLS = "/bench.floor.Participant/Calls"
RUN = "/bench.floor.Orchestrator/Run"
RUNS = "/bench.floor.Orchestrator/Runs"
