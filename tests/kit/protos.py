"""Messages that a test defines in the language of protos."""

import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass
from grpc_tools import protoc

from tests.kit.contract import ROOT

_HEAD = """syntax = "proto3";
package boatyard.test.{name};
import "boatyard/rules/v1/rules.proto";
import "buf/validate/validate.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/timestamp.proto";
"""


def compiled(name: str, text: str) -> dict[str, Any]:
    """Compile messages and services, and return the messages' classes. `name` is one for this text alone."""
    with tempfile.TemporaryDirectory() as directory:
        source, out = Path(directory) / f"{name}.proto", Path(directory) / "out"
        source.write_text(_HEAD.format(name=name) + text)
        well_known = resources.files("grpc_tools") / "_proto"
        paths = [f"-I{directory}", f"-I{ROOT / 'protos'}", f"-I{well_known}"]
        assert protoc.main(["protoc", *paths, f"--descriptor_set_out={out}", str(source)]) == 0
        (file,) = FileDescriptorSet.FromString(out.read_bytes()).file
    file.name = f"boatyard/test/{file.name}"
    pool = Default()
    pool.AddSerializedFile(file.SerializeToString())
    found = pool.FindFileByName(file.name).message_types_by_name
    return {each: GetMessageClass(message) for each, message in found.items()}
