"""No fact that a node service knows is lost on the way to people: each field of its answers ends somewhere.

The driver calls the node services, and people see what it makes of their answers. A new field of an answer fails here
until it has a line: with where people meet it, or with the reason why they do not.
"""

from collections.abc import Iterator

import pytest
from boatyard.gateway.v1 import job_pb2, output_pb2, runtime_pb2

from services.cli.job_view import print_job
from services.cli.screen import Screen
from services.cli.shapes import job as shape_of_job
from services.common.caveats import CAVEATS, CaveatKind, told
from services.common.rpc.mapper import Mapper
from services.gateway.wire.output import output_to_proto
from services.lifecycle.model.output import Caveat, Output
from services.lifecycle.nodes import wire
from tests.kit.contract import messages, methods

# The RPCs that a job's driver calls. Others are an operator's, and pass on their answers as they are.
CALLED = {
    "workspace.v1": "CreateWorkspace UpdateWorkspaceState DeleteWorkspace",
    "git.v1": "PrepareBase CreateBranch TakeResult SnapshotTree GetSnapshot ListChangedFiles GetDiff CheckPush Push"
    " TakeArtifacts",
    "execution.v1": "StartExecution GetExecution WaitExecution StopExecution WatchEvents Answer",
}

# message, fields, where they end:
#   within         the message of that type has lines of its own
#   driver         the driver calls the next service with it
#   Output.x       a field of a job's output
#   Execution.x    a field of an execution, as people get it
#   RPC x          an RPC of the gateway that asks the node for it
#   event          WatchExecution passes it on as it is
#   no: reason     nowhere
ENDS = """
workspace.v1.CreateWorkspaceResponse  workspace                      within
workspace.v1.UpdateWorkspaceStateResponse  workspace                 no: what has just been said to it
workspace.v1.Workspace  layout                                       driver
workspace.v1.Workspace  workspace_id                                 Execution.workspace_id
workspace.v1.Workspace  state driver labels held_by path             RPC ListWorkspaces
workspace.v1.Workspace  home_path home_workspace_id                  driver
workspace.v1.Workspace  create_time update_time complete_time expire_time  RPC ListWorkspaces
workspace.v1.Layout  path layers                                     driver
workspace.v1.Layers  lowers upper work mounted_path                  driver
workspace.v1.WorkspaceLabels  project_id job_id worker_id work_item_id repository_id branch  RPC ListWorkspaces
git.v1.PrepareBaseResponse  base                                     within
git.v1.PrepareBaseResponse  progress                                 no: the timeline says that the stage runs
git.v1.Progress  phase percent                                       no: the timeline says that the stage runs
git.v1.Base  commit_id                                               Output.base_commit_id
git.v1.Base  layers read_only_paths pins_path head_commit_id         driver
git.v1.Base  branch branch_is_lossy                                  no: JobSpec.revision is what was asked for
git.v1.Base  caveats                                                 Output.caveats
git.v1.Base  notes                                                   no: always empty
git.v1.BaseNote  kind paths total_paths raw_paths                    no: never sent
git.v1.Caveat  kind paths total_paths raw_paths detail               Output.caveats
git.v1.CreateBranchResponse  commit_id                               no: the base's, as was asked for
git.v1.TakeResultResponse  commit_id                                 Output.commit_id
git.v1.TakeResultResponse  changed                                   no: the commit is not the base
git.v1.TakeResultResponse  agent_commits                             Output.agent_commits
git.v1.TakeResultResponse  caveats                                   Output.caveats
git.v1.TakeResultResponse  lost_repositories raw_lost_repositories   no: always empty
git.v1.SnapshotTreeResponse  snapshot                                within
git.v1.GetSnapshotResponse  snapshot                                 within
git.v1.Snapshot  snapshot_id                                         Output.snapshot_id
git.v1.Snapshot  repository_id base_commit_id commit_id              driver
git.v1.Snapshot  message create_time expire_time                     RPC ListSnapshots
git.v1.Snapshot  caveats                                             Output.caveats
git.v1.ListChangedFilesResponse  files                               Output.files_changed
git.v1.ListChangedFilesResponse  total_files                         Output.total_files_changed
git.v1.ListChangedFilesResponse  next_page_token base_commit_id      no: one page is kept, of commits that we named
git.v1.ChangedFile  path change old_path additions deletions raw_path raw_old_path  Output.files_changed
git.v1.GetDiffResponse  data                                         Output.diff
git.v1.GetDiffResponse  truncated                                    Output.diff_truncated
git.v1.GetDiffResponse  omitted_files base_commit_id                 RPC ReadDiff
git.v1.PushResponse  pushed                                          Output.pushed
git.v1.PushResponse  progress                                        no: the timeline says that the stage runs
git.v1.Pushed  already_there                                         no: the branch is at the commit, by whichever try
git.v1.TakeArtifactsResponse  artifacts                              Output.artifacts
git.v1.TakeArtifactsResponse  omitted                                Output.omitted_artifacts
git.v1.TakeArtifactsResponse  total_omitted                          Output.total_omitted_artifacts
git.v1.Artifact  name size_bytes sha256                              Output.artifacts
git.v1.OmittedArtifact  name reason                                  Output.omitted_artifacts
execution.v1.StartExecutionResponse  execution                       within
execution.v1.GetExecutionResponse  execution                         within
execution.v1.WaitExecutionResponse  execution                        within
execution.v1.StopExecutionResponse  execution                        no: what it becomes is waited for
execution.v1.NodeExecution  execution_id                             Execution.execution_id
execution.v1.NodeExecution  purpose                                  Execution.purpose
execution.v1.NodeExecution  job_id                                   Execution.job_id
execution.v1.NodeExecution  state                                    Execution.state
execution.v1.NodeExecution  reason                                   Execution.reason
execution.v1.NodeExecution  message                                  Execution.message
execution.v1.NodeExecution  start_time                               Execution.start_time
execution.v1.NodeExecution  end_time                                 Execution.end_time
execution.v1.NodeExecution  exit_code                                Output.exit_code
execution.v1.NodeExecution  signal                                   Output.signal
execution.v1.NodeExecution  output_bytes                             Output.output_bytes
execution.v1.NodeExecution  model_use vitals                         within
execution.v1.NodeExecution  processes_left                           Output.processes_left
execution.v1.NodeExecution  last_sequence                            driver
execution.v1.NodeExecution  pending_permissions                      event
execution.v1.NodeExecution  create_time sandbox_tier                 no: the job's, in its spec
execution.v1.NodeExecution  end_verified_by                          no: how processes_left was counted
execution.v1.NodeExecution  events_trimmed                           no: whoever reads them gets EVENTS_TRIMMED
execution.v1.NodeExecution  leave_out reserves_model_use             driver
execution.v1.NodeExecution  model_outage                             driver
execution.v1.ModelOutage  provider retry_time                        driver
execution.v1.NodeExecution  host_uid                                 no: of this machine alone, for its operator
execution.v1.ModelUse  tokens                                        Output.tokens_used
execution.v1.ModelUse  cost_usd                                      Output.cost_usd
execution.v1.ModelUse  usage                                         Output.usage
agent.v1.ModelUsageSum  provider model day usage                     Output.usage
agent.v1.UsageSum  requests partial_requests unpriced_requests tokens input_tokens output_tokens cost_usd  Output.usage
agent.v1.UsageSum  cache_read_tokens cache_write_tokens cache_write_1h_tokens reasoning_tokens  Output.usage
execution.v1.ModelUse  claimed_tokens                                Output.claimed_tokens
execution.v1.ModelUse  claimed_cost_usd                              Output.claimed_cost_usd
execution.v1.ModelUse  turns                                         Output.turns
execution.v1.ModelUse  tool_calls                                    Output.tool_calls
execution.v1.ModelUse  last_words                                    Output.summary
execution.v1.Vitals  cpu_seconds                                     Output.cpu_seconds
execution.v1.Vitals  memory_peak_bytes                               Output.memory_peak_bytes
execution.v1.Vitals  memory_bytes processes read_bytes written_bytes  event
execution.v1.PermissionRequest  permission_id tool input tool_call_id  event
execution.v1.AnswerResponse  answer                                  within
agent.v1.Answer  reservation                                         within
agent.v1.ReservationAnswer  is_granted reason message retry_time is_last_warning  no: the driver has said it itself
agent.v1.ReservationAnswer  gates  no: the driver has said it itself
agent.v1.ModelGate  provider key model open_time  no: the driver has said it itself
execution.v1.WatchEventsResponse  events                             within
execution.v1.WatchEventsResponse  end next_sequence                  driver
"""
_EVENT = "boatyard.execution.v1.Event"


def ends() -> dict[str, str]:
    """Return where each field ends, by its full name without `boatyard.`."""
    found: dict[str, str] = {}
    for line in ENDS.strip().splitlines():
        message, fields, end = (part for part in line.split("  ") if part.strip())
        for field in fields.split():
            assert found.setdefault(f"{message}.{field}", end.strip()) == end.strip()
    return found


def answered() -> Iterator[str]:
    """Yield the fields of all answers that the driver gets, without those of events, which it passes on."""
    waiting = [f"boatyard.{package}.{name}Response" for package, names in CALLED.items() for name in names.split()]
    seen = {_EVENT}
    while waiting:
        name = waiting.pop()
        if name in seen or name not in messages():
            continue
        seen.add(name)
        for field in messages()[name].field:
            yield f"{name}.{field.name}".removeprefix("boatyard.")
            waiting.append(field.type_name.lstrip("."))


def test_of_every_field_somebody_has_said_where_it_ends() -> None:
    assert set(answered()) == set(ends())


@pytest.mark.parametrize("end", sorted(set(ends().values())))
def test_where_it_ends_exists(end: str) -> None:
    kind, _, name = end.partition(".")
    if kind in {"Output", "Execution"}:
        fields = {"Output": output_pb2.Output, "Execution": runtime_pb2.Execution}[kind].DESCRIPTOR.fields_by_name
        assert name in fields
    elif end.startswith("RPC "):
        assert end.removeprefix("RPC ") in {method.proto.name for method in methods()}
    else:
        assert end in {"within", "driver", "event"} or end.startswith("no: ")


def test_what_the_driver_does_not_read_ends_elsewhere() -> None:
    mappers = [each for each in vars(wire).values() if isinstance(each, Mapper)]
    known = ends()
    unread = {
        f"{mapper.message.DESCRIPTOR.full_name}.{field}".removeprefix("boatyard.")
        for mapper in mappers
        for field in mapper.by_hand
    }
    read_elsewhere = {"execution.v1.NodeExecution.vitals"}
    assert {
        name: known[name] for name in unread & known.keys() - read_elsewhere
        if not known[name].startswith(("no: ", "RPC ", "event"))
        and not (name.startswith("execution.v1.NodeExecution") and known[name].startswith("Execution."))
    } == {}  # fmt: skip


@pytest.mark.parametrize("kind", CaveatKind)
def test_each_caveat_is_told_to_people_and_programs(kind: CaveatKind, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(commit_id="c0ffee", caveats=(Caveat(kind, (b"a\xff", b"b\n"), 7, "because"),))
    message = output_to_proto(output)
    assert message.incomplete == CAVEATS[kind].is_loss
    shown = job_pb2.Job(output=message)
    print_job(Screen(), shown)
    said = capsys.readouterr().out
    assert CAVEATS[kind].says in said.replace("\n", " ")
    assert all(words in said for words in ("b\\n", "5 more", "because"))
    (caveat,) = shape_of_job(shown)["caveats"]
    assert caveat == {"kind": kind.value, "paths": ["a\udcff", "b\n"], "total_paths": 7, "detail": "because"}
    assert shape_of_job(shown)["incomplete"] == CAVEATS[kind].is_loss


def test_a_kind_that_is_newer_is_told_by_its_name() -> None:
    assert told("NEW", ["a"], 1) == "NEW: a"
