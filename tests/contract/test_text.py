"""Text is text (decision 0028): what people type or read is `string`, and is what it was as `bytes` on the wire."""

import hashlib
from collections.abc import Iterator
from functools import cache

import pytest
from boatyard.execution.v1 import event_pb2, execution_pb2
from boatyard.gateway.v1 import catalog_pb2, coordinator_pb2, job_pb2, output_pb2
from boatyard.git.v1 import git_pb2
from boatyard.ledger.v1 import ledger_pb2
from boatyard.rules.v1 import rules_pb2  # noqa: F401 - other files use it, and the pool has it from here
from boatyard.workspace.v1 import layout_pb2, workspace_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, symbol_database
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from google.protobuf.message import Message

from services.common.rpc.secrecy import without_secrets
from services.execution.wire.requests import digest
from services.gateway.wire.requests import idempotency_key
from tests.kit.contract import files, messages

TEXT = "wörk/Ü-✓"

# Content, which need not be text: all that may be `bytes`.
CONTENT = {
    "boatyard.execution.v1.AttachExecutionRequest.input",
    "boatyard.execution.v1.OutputChunk.data",
    "boatyard.agent.v1.Replay.recording",
    "boatyard.execution.v1.Note.output",
    "boatyard.execution.v1.ReadRecordingResponse.data",
    "boatyard.gateway.v1.AttachExecutionRequest.input",
    "boatyard.gateway.v1.InputFile.content",
    "boatyard.gateway.v1.ReadArtifactResponse.data",
    "boatyard.gateway.v1.ReadDiffResponse.data",
    "boatyard.gateway.v1.ReadRecordingResponse.data",
    "boatyard.gateway.v1.ReadWorkspaceDiffResponse.data",
    "boatyard.ledger.v1.ReadSigningKeyResponse.key",
    "boatyard.git.v1.GetDiffResponse.data",
    "boatyard.git.v1.ReadArtifactResponse.data",
    "boatyard.workspace.v1.File.content",
}
# What drivers pack for themselves and a ledger only keeps.
PACKED = {
    "boatyard.gateway.v1.ClaimedJob.order",
    "boatyard.ledger.v1.EndStageRequest.notes",
    "boatyard.ledger.v1.FinishJobRequest.outcome",
    "boatyard.ledger.v1.NoteExecutionRequest.note",
    "boatyard.ledger.v1.ParkJobRequest.question",
    "boatyard.ledger.v1.ReadAttemptResponse.note",
    "boatyard.ledger.v1.ReadDecisionResponse.decision",
    "boatyard.ledger.v1.ReadDocumentRequest.outcome",
    "boatyard.ledger.v1.ReadJobContextResponse.job_context",
    "boatyard.ledger.v1.RecordHookCallRequest.call",
    "boatyard.ledger.v1.RecordedStage.result",
    "boatyard.ledger.v1.ReserveModelUseRequest.need",
    "boatyard.ledger.v1.ReserveModelUseResponse.granting",
    "boatyard.ledger.v1.RetryLaterRequest.retry",
    "boatyard.ledger.v1.SettleModelUseRequest.use",
}
# Fields that were `bytes` before.
WERE_BYTES = {
    "boatyard.execution.v1": {
        "ExecutionSpec": "read_only_paths",
        "ExecutionSpec.EnvironmentEntry": "value",
        "ExecutionSpec.SecretsEntry": "value",
        "PermissionRequest": "input",
        "ToolCall": "input",
        "ToolResult": "output",
    },
    "boatyard.gateway.v1": {
        "CompleteJobRequest": "branch",
        "FileChange": "path old_path",
        "GetWorkContextResponse": "branch",
        "JobSpec": "revision branch data",
        "Output": "branch diff log_tail",
        "Repository": "default_revision",
    },
    "boatyard.ledger.v1": {"ReadDocumentResponse": "document"},
    "boatyard.git.v1": {
        "Base": "layers read_only_paths branch pins_path",
        "BaseNote": "paths",
        "ChangedFile": "path old_path",
        "Clone": "path",
        "CloneRepositoryRequest": "branch",
        "CreateBranchRequest": "branch",
        "GetCurrentBranchResponse": "branch",
        "GetDiffRequest": "base_branch",
        "ListChangedFilesRequest": "base_branch",
        "PrepareBaseRequest": "revision",
        "PushRequest": "branch",
        "StatusEntry": "path old_path",
        "TakeResultResponse": "lost_repositories",
        "WorkingTree": "read_only_paths",
    },
    "boatyard.workspace.v1": {
        "CreateWorkspaceRequest": "base_layers pins_path",
        "File": "path",
        "Layers": "lowers upper work mounted_path",
        "Layout": "path",
        "WorkspaceLabels": "branch",
    },
}

MODULES = {
    "boatyard.execution.v1": (event_pb2, execution_pb2),
    "boatyard.gateway.v1": (catalog_pb2, coordinator_pb2, job_pb2, output_pb2),
    "boatyard.ledger.v1": (ledger_pb2,),
    "boatyard.git.v1": (git_pb2,),
    "boatyard.workspace.v1": (layout_pb2, workspace_pb2),
}


def bytes_fields() -> Iterator[str]:
    for name, message in messages().items():
        yield from (f"{name}.{field.name}" for field in message.field if field.type == field.TYPE_BYTES)


def test_nothing_is_bytes_but_content_and_raw_paths() -> None:
    found = set(bytes_fields())
    assert {name for name in found if not name.rpartition(".")[2].startswith("raw_")} == CONTENT | PACKED


def test_raw_bytes_are_beside_the_text_that_they_are_of() -> None:
    for name in bytes_fields():
        owner, _, field = name.rpartition(".")
        if field.startswith("raw_"):
            (text,) = (one for one in messages()[owner].field if one.name == field.removeprefix("raw_"))
            assert text.type == FieldDescriptorProto.TYPE_STRING, name


@cache
def before() -> descriptor_pool.DescriptorPool:
    """Return the contract as it was, with `bytes` where text is now."""
    pool = descriptor_pool.DescriptorPool()
    added: set[str] = set()

    def add(name: str) -> None:
        if name in added:
            return
        added.add(name)
        file = next((each for each in files() if each.name == name), None)
        if file is None:
            file = descriptor_pb2.FileDescriptorProto()
            symbol_database.Default().pool.FindFileByName(name).CopyToProto(file)
        else:
            file = type(file).FromString(file.SerializeToString())
            for message in file.message_type:
                _as_before(message, f"{message.name}", WERE_BYTES.get(file.package, {}))
        for dependency in file.dependency:
            add(dependency)
        pool.Add(file)

    for file in files():
        add(file.name)
    return pool


def _as_before(message: DescriptorProto, name: str, were_bytes: dict[str, str]) -> None:
    for field in message.field:
        if field.name in were_bytes.get(name, "").split():
            assert field.type == field.TYPE_STRING, f"{name}.{field.name}"
            field.type = field.TYPE_BYTES
    for nested in message.nested_type:
        _as_before(nested, f"{name}.{nested.name}", were_bytes)


def as_before(message: Message) -> Message:
    """Return what a client of the contract before sends for the same message, with its text encoded."""
    old: Message = message_factory.GetMessageClass(before().FindMessageTypeByName(message.DESCRIPTOR.full_name))()
    _fill(message, old)
    return old


def _fill(new: Message, old: Message) -> None:
    for field, value in new.ListFields():
        target = getattr(old, field.name)
        was_bytes = old.DESCRIPTOR.fields_by_name[field.name].type == FieldDescriptorProto.TYPE_BYTES
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entry = old.DESCRIPTOR.fields_by_name[field.name].message_type.fields_by_name["value"]
            for key, each in value.items():
                target[key] = each.encode() if entry.type == FieldDescriptorProto.TYPE_BYTES else each
        elif field.message_type is not None and not field.is_repeated:
            target.SetInParent()
            _fill(value, target)
        elif field.is_repeated:
            target.extend(each.encode() if was_bytes else each for each in value)
        else:
            setattr(old, field.name, value.encode() if was_bytes else value)


def spec() -> execution_pb2.ExecutionSpec:
    return execution_pb2.ExecutionSpec(
        purpose=execution_pb2.ExecutionSpec.PURPOSE_AGENT,
        layout={"layers": {"lowers": [f"/{TEXT}"], "upper": "/u", "work": "/w", "mounted_path": "/m"}},
        read_only_paths=["/usr", f"/{TEXT}"],
        prompt=TEXT,
        environment={"A": TEXT, "B": ""},
        secrets={"TOKEN": TEXT},
    )


def request() -> job_pb2.CreateJobRequest:
    job = job_pb2.JobSpec(prompt=TEXT, repository_id="r", revision="main", branch=TEXT, data='{ "a":1 }')
    return job_pb2.CreateJobRequest(request_id="once", spec=job)


def test_a_request_id_used_before_is_recognized() -> None:
    """Its fingerprint is of the message as it is on the wire, and that is the same."""
    now, earlier = idempotency_key(request()), idempotency_key(as_before(request()))
    assert now is not None
    assert now == earlier


def test_an_execution_started_before_is_recognized() -> None:
    earlier = as_before(without_secrets(spec())).SerializeToString(deterministic=True)
    assert digest(spec()) == hashlib.sha256(earlier).digest()


@pytest.mark.parametrize("package", WERE_BYTES)
def test_services_of_two_versions_understand_each_other(package: str) -> None:
    """Every field that was bytes and is text now is read by the other version as it was written."""
    for name, fields in WERE_BYTES[package].items():
        if name.endswith("Entry"):
            continue  # entries of maps, of which the test above has both
        new = next(getattr(module, name) for module in MODULES[package] if hasattr(module, name))()
        for field in fields.split():
            is_list = new.DESCRIPTOR.fields_by_name[field].is_repeated
            if is_list:
                getattr(new, field).extend([TEXT, "/b"])
            else:
                setattr(new, field, TEXT)
        old = as_before(new)
        assert type(old).FromString(new.SerializeToString()) == old
        assert type(new).FromString(old.SerializeToString()) == new
