"""The protos as data, with their comments, for the contract tests."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from grpc_tools import protoc

ROOT = Path(__file__).parents[2]

STATUSES = (
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "INTERNAL",
)

_STATUS_AND_REASONS = re.compile(rf"\b({'|'.join(STATUSES)})\s+\(([A-Z0-9_]+(?:,\s+[A-Z0-9_]+)*)\)")
# Field numbers of FileDescriptorProto, ServiceDescriptorProto and DescriptorProto, which paths to comments consist of.
_MESSAGE_PATH, _SERVICE_PATH = 4, 6
_METHOD_PATH, _FIELD_PATH, _NESTED_PATH = 2, 2, 3


@dataclass(frozen=True)
class Method:
    """One RPC, with its comment and its service's comment."""

    file: FileDescriptorProto
    service: str
    proto: MethodDescriptorProto
    comment: str
    service_comment: str

    @property
    def name(self) -> str:
        return f"{self.file.package}.{self.service}.{self.proto.name}"

    def __str__(self) -> str:
        return self.name


@cache
def files() -> tuple[FileDescriptorProto, ...]:
    """Compile our protos, with their comments."""
    protos = sorted(str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos/boatyard").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "all"
        well_known = resources.files("grpc_tools") / "_proto"
        arguments = [f"-I{ROOT / 'protos'}", f"-I{well_known}", "--include_source_info", f"--descriptor_set_out={out}"]
        assert protoc.main(["protoc", *arguments, *protos]) == 0
        return tuple(FileDescriptorSet.FromString(out.read_bytes()).file)


@cache
def methods() -> tuple[Method, ...]:
    """Return every RPC."""
    return tuple(
        Method(
            file,
            service.name,
            method,
            _comment(file, _SERVICE_PATH, service_index, _METHOD_PATH, method_index),
            _comment(file, _SERVICE_PATH, service_index),
        )
        for file in files()
        for service_index, service in enumerate(file.service)
        for method_index, method in enumerate(service.method)
    )


@cache
def messages() -> dict[str, DescriptorProto]:
    """Return every message by its full name, including nested ones."""

    def below(prefix: str, message: DescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
        name = f"{prefix}.{message.name}"
        yield name, message
        for nested in message.nested_type:
            yield from below(name, nested)

    return {
        name: each for file in files() for message in file.message_type for name, each in below(file.package, message)
    }


def fields() -> Iterator[tuple[str, FieldDescriptorProto, str]]:
    """Yield every field with its full name and its comment."""

    def inside(
        message: DescriptorProto, name: str, path: tuple[int, ...], comments: dict[tuple[int, ...], str]
    ) -> Iterator[tuple[str, FieldDescriptorProto, str]]:
        for index, field in enumerate(message.field):
            yield f"{name}.{field.name}", field, comments.get((*path, _FIELD_PATH, index), "")
        for index, nested in enumerate(message.nested_type):
            yield from inside(nested, f"{name}.{nested.name}", (*path, _NESTED_PATH, index), comments)

    for file in files():
        comments = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}
        for index, message in enumerate(file.message_type):
            yield from inside(message, f"{file.package}.{message.name}", (_MESSAGE_PATH, index), comments)


def reasons_in(comment: str) -> Iterator[tuple[str, str]]:
    """Yield each (status, reason) that a comment names."""
    for status, listed in _STATUS_AND_REASONS.findall(comment):
        for reason in re.split(r",\s+", listed):
            yield status, reason


def documented_reasons() -> dict[str, set[str]]:
    """Return each reason that a comment names, with the statuses next to it."""
    reasons: dict[str, set[str]] = {}
    for file in files():
        for location in file.source_code_info.location:
            for status, reason in reasons_in(location.leading_comments):
                reasons.setdefault(reason, set()).add(status)
    return reasons


def _comment(file: FileDescriptorProto, *path: int) -> str:
    for location in file.source_code_info.location:
        if tuple(location.path) == path:
            return str(location.leading_comments)
    return ""
