"""What a VIEWER can read: every text and every blob in the answers of RPCs for VIEWER.

A new one fails here until somebody has decided who may read it: it is listed, or its field is `readable_by` others.
"""

from collections.abc import Iterator

from boatyard.access.v1 import access_pb2
from boatyard.gateway.v1 import catalog_pb2, job_pb2
from boatyard.gateway.v1.hook_pb2 import Hook, ListHooksResponse, Webhook
from boatyard.gateway.v1.runtime_pb2 import ListWorkspacesResponse
from boatyard.workspace.v1.layout_pb2 import Layers, Layout
from boatyard.workspace.v1.workspace_pb2 import Workspace
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from services.gateway.values.principal import Role
from services.gateway.wire.access import readable, withheld_from
from tests.kit.contract import messages, methods

WITHHELD = {
    "agent.v1.AgentSettings.environment": "people put keys there, even if they are told not to",
    "gateway.v1.Webhook.url": "many servers authenticate their callers by the path alone",
    **{
        f"workspace.v1.{field}": "paths of the machine are for those who may work on it"
        for field in (
            "DriverStatus.complaint",
            "Layers.lowers",
            "Layers.mounted_path",
            "Layers.upper",
            "Layers.work",
            "Layout.path",
            "Workspace.home_path",
            "Workspace.path",
        )
    },
}

WRITE_ONLY = {
    "agent.v1.ModelProvider.keys",
    "agent.v1.AgentSettings.secrets",
    "execution.v1.ExecutionSpec.redacted",
    "gateway.v1.Provider.keys",
    "git.v1.TakeArtifactsRequest.redacted",
    "execution.v1.ExecutionSpec.secrets",
    "gateway.v1.Project.secrets",
    "gateway.v1.SetProjectSecretRequest.value",
}
"""Readable by COORDINATOR: to everyone else they are shown without their values."""

NEVER_WRITTEN = {
    "gateway.v1.Repository.token",
    "gateway.v1.Provider.keys",
    "gateway.v1.Webhook.secret",
    "gateway.v1.Callback.token",
    "gateway.v1.InputFile.content",
    "agent.v1.Replay.recording",
}

READABLE = {
    "what is to be done, in the words of those who ask for it": """
        gateway.v1.JobSpec prompt data labels branch revision kind
        gateway.v1.WorkItem title description notes
        gateway.v1.Document name content
        gateway.v1.InputFile name
        gateway.v1.Project display_name
        gateway.v1.Template display_name
        gateway.v1.Worker display_name
        gateway.v1.JobKind kind description required_fields required_data
        gateway.v1.Repository default_revision""",
    "how it is done, which the contract says that every VIEWER can read": """
        agent.v1.AgentSettings system_prompt model allowed_hosts image providers
        agent.v1.CommandEngine line preset ask_before refuse
        agent.v1.AnthropicEngine ask_before
        gateway.v1.Policy verify_command retry_on artifacts leave_out
        gateway.v1.Floor verify_command protected_paths allowed_hosts
        gateway.v1.BindingFloor set_by
        gateway.v1.Checkpoints before
        gateway.v1.Hook command stage kinds
        gateway.v1.Repository ca push_options
        gateway.v1.Provider aliases models project_header ca""",
    "addresses that cannot hold a secret: user, password and query are refused, or there is no path": """
        gateway.v1.Repository url
        gateway.v1.Callback url
        gateway.v1.Provider base_url
        gateway.v1.Output pull_request_url
        gateway.v1.Cell address host version""",
    "what came out, after redaction": """
        execution.v1.OutputChunk data
        execution.v1.Text text
        execution.v1.Thinking text
        execution.v1.ToolCall tool input
        execution.v1.ToolResult output
        execution.v1.PermissionRequest tool input
        execution.v1.PermissionAnswer reason decided_by
        execution.v1.MessageDelivered text
        execution.v1.NetworkDecision host reason
        execution.v1.Note step text output
        execution.v1.StateChange state reason message
        execution.v1.TurnEnd stop_reason
        execution.v1.ModelUsage model provider terms
        agent.v1.ModelUsageSum provider model day
        gateway.v1.CostGroup provider model day label_value
        agent.v1.Reservation provider model
        agent.v1.ModelGate provider model
        gateway.v1.Output summary branch diff log_tail review_comment
        gateway.v1.FileChange path old_path raw_path raw_old_path
        gateway.v1.ReadArtifactResponse data
        gateway.v1.ReadDiffResponse data
        gateway.v1.ReadRecordingResponse data
        git.v1.Artifact name sha256
        git.v1.OmittedArtifact name
        gateway.v1.Verification reason
        git.v1.Caveat paths raw_paths detail
        git.v1.Snapshot message""",
    "what happened to it": """
        gateway.v1.Job reason message submitters steered_by
        gateway.v1.Waiting message
        gateway.v1.BudgetUse spender period
        gateway.v1.Execution reason message job_reason branch
        gateway.v1.StageRecord name message prompt_addition labels
        gateway.v1.HookCall stage status answer
        gateway.v1.Checkpoint name question comment
        gateway.v1.Decider name peer via""",
    "where it is, and its state": """
        gateway.v1.GetStatusResponse version jobs
        readiness.v1.Trouble reason message
        gateway.v1.CellUsage driver
        gateway.v1.ListSnapshotsResponse cell_ids
        gateway.v1.ListWorkspacesResponse cell_ids
        workspace.v1.DriverStatus name
        workspace.v1.WorkspaceLabels branch
        workspace.v1.Workspace driver held_by""",
}

_FREE = {FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES}
_NO_TEXT = ("_id", "_ids", "page_token")


def readable_by_viewers() -> set[str]:
    """Return the fields with free text in the answers of RPCs for VIEWER."""
    fields_by_message: dict[str, set[str]] = {}
    for method in methods():
        if method.proto.options.Extensions[access_pb2.required_role] == access_pb2.ROLE_VIEWER:
            _collect_below(method.proto.output_type.lstrip("."), fields_by_message)
    return {one.removeprefix("boatyard.") for fields in fields_by_message.values() for one in fields}


def _collect_below(name: str, fields_by_message: dict[str, set[str]]) -> None:
    if name in fields_by_message or name not in messages():
        return
    fields_by_message[name] = set()
    for field in messages()[name].field:
        inner = messages().get(field.type_name.lstrip("."))
        is_map = inner is not None and inner.options.map_entry
        if is_map or (field.type in _FREE and not field.name.endswith(_NO_TEXT)):
            fields_by_message[name].add(f"{name}.{field.name}")
        elif field.type == FieldDescriptorProto.TYPE_MESSAGE:
            _collect_below(field.type_name.lstrip("."), fields_by_message)


def listed() -> Iterator[str]:
    for lines in READABLE.values():
        for line in lines.strip().splitlines():
            message, *fields = line.split()
            yield from (f"{message}.{field}" for field in fields)


def test_of_every_text_that_viewers_get_somebody_has_said_why() -> None:
    assert readable_by_viewers() == {
        *listed(),
        *WITHHELD,
        *NEVER_WRITTEN,
        "agent.v1.AgentSettings.secrets",
        "gateway.v1.Project.secrets",
    }


def test_what_is_for_others_is_said_so_in_the_contract() -> None:
    withheld = {
        f"{name}.{field.name}".removeprefix("boatyard.")
        for name, message in messages().items()
        for field in message.field
        if field.options.HasExtension(access_pb2.readable_by)
    }
    assert withheld == {*WITHHELD, *WRITE_ONLY}


def test_a_viewer_is_told_the_names_of_an_environment_and_not_its_values() -> None:
    job = job_pb2.Job(job_id="job-1")
    names = [f"KEY_{number}" for number in range(100)]
    job.spec.agent.environment.update(dict.fromkeys(names, "s3cret"))
    answer = job_pb2.ListJobsResponse(jobs=[job, job])

    seen = readable(answer, Role.VIEWER)

    assert [dict(each.spec.agent.environment) for each in seen.jobs] == [dict.fromkeys(names, "")] * 2
    assert seen.jobs[0].job_id == "job-1"
    assert answer.jobs[0].spec.agent.environment["KEY_7"] == "s3cret", "the answer is as it was, for others"
    for role in (Role.OPERATOR, Role.ADMIN, Role.COORDINATOR):
        assert readable(answer, role) is answer


def test_only_an_administrator_is_told_where_a_webhook_goes_to() -> None:
    hook = Hook(webhook=Webhook(url="https://hooks.example.com:8443/services/T0/s3cret?token=s3cret"))
    answer = ListHooksResponse(hooks=[hook, Hook(command="true")])
    for role in (Role.VIEWER, Role.OPERATOR):
        seen = readable(answer, role)
        assert seen.hooks[0].webhook.url == "https://hooks.example.com:8443"
        assert seen.hooks[1] == Hook(command="true"), "what has no webhook gets none"
    assert readable(answer, Role.ADMIN) is answer


def test_a_viewer_is_not_told_where_on_the_machine_a_workspace_is() -> None:
    layers = Layers(lowers=["/srv/base"], upper="/srv/w1/upper", work="/srv/w1/work", mounted_path="/srv/w1/mount")
    workspaces = [Workspace(workspace_id="w1", layout=Layout(layers=layers)), Workspace(layout=Layout(path="/srv/w2"))]
    answer = ListWorkspacesResponse(workspaces=workspaces)
    seen = readable(answer, Role.VIEWER)
    assert seen.workspaces[0].workspace_id == "w1"
    assert "/srv" not in str(seen)
    for role in (Role.OPERATOR, Role.ADMIN):
        assert readable(answer, role) is answer


def test_answers_without_anything_kept_are_not_copied() -> None:
    assert not withheld_from(catalog_pb2.GetRepositoryResponse.DESCRIPTOR, Role.VIEWER)
