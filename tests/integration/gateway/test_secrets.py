"""What is secret is secret everywhere: in answers, events, outputs, documents of hooks, logs, files and processes."""

import base64
import secrets
from pathlib import Path

from boatyard.gateway.v1 import catalog_pb2, checkpoint_pb2, hook_pb2, job_pb2, runtime_pb2
from google.protobuf.field_mask_pb2 import FieldMask

from services.common.errors import AlreadyExists, Invalid
from services.common.ids import new_id
from services.common.rpc.streaming import streaming
from tests.kit.catalog import refusal
from tests.kit.repos import Repo
from tests.kit.services import Services

LEAK = """
test "$DEEP/$WIDE/$OWN" = "$(echo "$EXPECTED" | base64 -d)" || exit 9
echo "it is $OWN"; echo "or $WIDE" >&2; echo "$DEEP" > "$DEEP.txt"
mkdir .boatyard 2>/dev/null; printf 'May I use %s?' "$OWN" > .boatyard/ask
"""


def token() -> str:
    return secrets.token_urlsafe(24)


async def diff_of(services: Services, execution_id: str) -> bytes:
    request = runtime_pb2.ReadDiffRequest(execution_id=execution_id)
    async with streaming(services.runtime.ReadDiff(request)) as parts:
        return b"".join([part.data async for part in parts])


async def project(services: Services, **values: str) -> str:
    project_id = new_id("project")
    request = catalog_pb2.CreateProjectRequest(project=catalog_pb2.Project(project_id=project_id, secrets=values))
    await services.catalog.CreateProject(request)
    return project_id


def files_with(root: Path, values: list[str]) -> list[Path]:
    """Return the files below a directory that have one of some values in them."""
    found = []
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            found += [path for value in values if value.encode() in content]
    return found


def process_texts() -> bytes:
    """Return the arguments of all processes, and the environment of ours."""
    texts = b""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            texts += (directory / "cmdline").read_bytes() + (directory / "environ").read_bytes()
        except OSError:
            continue
    return texts


async def test_an_agents_secrets_reach_it_and_are_shown_nowhere(services: Services, remote: Repo) -> None:
    deep, wide, own = values = [token(), token(), token()]
    project_id = await project(services, WIDE=wide, DEEP="of the project")
    template = catalog_pb2.Template(project_id=project_id, agent={"secrets": {"DEEP": deep, "OWN": "of the template"}})
    template_id = (
        await services.catalog.CreateTemplate(catalog_pb2.CreateTemplateRequest(template=template))
    ).template.template_id
    hook = hook_pb2.Hook(project_id=project_id, event=hook_pb2.Hook.EVENT_POST, command="cat; env")
    await services.hooks.CreateHook(hook_pb2.CreateHookRequest(hook=hook))
    repository = catalog_pb2.Repository(project_id=project_id, url=str(remote.path))
    made = await services.catalog.CreateRepository(catalog_pb2.CreateRepositoryRequest(repository=repository))
    expected = base64.b64encode("/".join(values).encode()).decode()

    job = await services.submit(
        LEAK,
        project_id=project_id,
        template_id=template_id,
        repository_id=made.repository.repository_id,
        agent={"secrets": {"OWN": own}, "environment": {"EXPECTED": expected, "OWN": "hidden by the secret"}},
        policy={"agent_may_ask": True, "max_extra_rounds": 1, "verify_command": "cat *.txt; ls; env; false"},
    )
    asked = await services.asked(job.job_id)
    seen_processes = process_texts()
    answer = checkpoint_pb2.ApproveCheckpointRequest(checkpoint_id=asked.checkpoint_id)
    await services.checkpoints.ApproveCheckpoint(answer)
    job = await services.ended(job.job_id)

    assert asked.question == "May I use [redacted:OWN]?"
    assert job.reason == "ROUNDS_EXCEEDED", (job.reason, job.message)
    diff = await diff_of(services, job.execution_ids[-1])
    assert b"+[redacted:DEEP]" in diff
    assert b"[redacted:DEEP].txt" in diff
    events = [await services.output(each) for each in job.execution_ids]
    assert b"it is [redacted:OWN]" in b"".join(events)
    listed = await services.jobs.ListJobs(job_pb2.ListJobsRequest(filter={"project_id": project_id}))
    templates = await services.catalog.ListTemplates(catalog_pb2.ListTemplatesRequest(project_id=project_id))
    projects = await services.catalog.GetProject(catalog_pb2.GetProjectRequest(project_id=project_id))
    calls = await services.hooks.ListHookCalls(hook_pb2.ListHookCallsRequest(job_id=job.job_id))
    assert dict(job.spec.agent.secrets) == dict.fromkeys(["DEEP", "OWN", "WIDE"], "")
    assert dict(job.spec.agent.environment) == {"EXPECTED": expected}
    assert dict(projects.project.secrets) == {"WIDE": "", "DEEP": ""}
    everything = str([job, listed, templates, projects, calls, asked, events, diff]).encode() + seen_processes
    assert [value for value in values if value.encode() in everything] == []
    kept = [path for path in files_with(services.home.root, values) if "workspace" not in path.parts]
    assert [path for path in kept if "objects" not in path.parts] == []
    assert files_with(services.root, values) == files_with(services.home.root, values)


async def test_a_check_and_a_failed_jobs_message_do_not_tell_a_secret(services: Services, remote: Repo) -> None:
    value = token()
    job = await services.run(
        "printf 'the key is %s' \"$KEY_OF_MINE\" > leak.txt",
        repository_id=await services.repository(remote),
        agent={"secrets": {"KEY_OF_MINE": value}},
        policy={"verify_command": "cat leak.txt; exit 1"},
    )
    assert job.reason == "VERIFY_FAILED"
    assert "its last line: the key is [redacted:KEY_OF_MINE]" in job.message
    assert value not in str(job)


async def test_the_name_of_a_protected_path_does_not_tell_a_secret(services: Services, remote: Repo) -> None:
    value = token()
    project_id = await project(services, KEY_OF_MINE=value)
    floored = catalog_pb2.Project(project_id=project_id, floor={"protected_paths": ["*.txt"]})
    mask = FieldMask(paths=["floor"])
    await services.catalog.UpdateProject(catalog_pb2.UpdateProjectRequest(project=floored, update_mask=mask))
    repository = catalog_pb2.Repository(project_id=project_id, url=str(remote.path))
    made = await services.catalog.CreateRepository(catalog_pb2.CreateRepositoryRequest(repository=repository))
    job = await services.submit(
        'touch "$KEY_OF_MINE.txt"', project_id=project_id, repository_id=made.repository.repository_id
    )
    asked = await services.asked(job.job_id)
    assert asked.question.endswith("It changes protected paths: [redacted:KEY_OF_MINE].txt.")
    recorded = base64.b64encode(value[:30].encode()).decode()  # as paths are
    assert files_with(services.home.root / "gateway", [value, recorded]) == []
    await services.checkpoints.RejectCheckpoint(
        checkpoint_pb2.RejectCheckpointRequest(checkpoint_id=asked.checkpoint_id, reason="enough")
    )
    await services.ended(job.job_id)


async def test_a_secret_that_cannot_be_hidden_is_refused_where_it_is_given(services: Services) -> None:
    for bad in ("short", "   tiny \n"):
        spec = job_pb2.JobSpec(prompt="x", agent={"command": {"line": "true"}, "secrets": {"A": bad}})
        error = await refusal(services.jobs.CreateJob(job_pb2.CreateJobRequest(spec=spec)), Invalid)
        assert [field for field, _ in error.violations] == ['spec.agent.secrets["A"]']


async def test_what_looks_like_a_token_is_refused_where_everyone_may_read_it(services: Services) -> None:
    key = "ghp" + "_" + "a1B2" * 9
    agent = {"command": {"line": f"curl -H 'Authorization: {key}'"}, "environment": {"HARMLESS": f"x{key}"}}
    spec = job_pb2.JobSpec(prompt="x", agent=agent, policy={"verify_command": f"GH={key} make"})
    error = await refusal(services.jobs.CreateJob(job_pb2.CreateJobRequest(spec=spec)), Invalid)
    advice = {
        "spec.agent.command.line": "--secret NAME=@FILE",
        'spec.agent.environment["HARMLESS"]': "--secret NAME=@FILE",
        "spec.policy.verify_command": "checks get no secrets",
    }
    assert {field for field, _ in error.violations} == advice.keys()
    assert all(advice[field] in rule and key not in rule for field, rule in error.violations)


async def test_a_request_id_tells_nothing_of_a_secret(services: Services) -> None:
    """The same request with another secret is the same one: of a short secret a fingerprint could be guessed."""
    request_id = new_id("request")
    made = []
    for value in (token(), token()):
        spec = job_pb2.JobSpec(prompt="x", agent={"command": {"line": "true"}, "secrets": {"A": value}})
        made.append(await services.jobs.CreateJob(job_pb2.CreateJobRequest(spec=spec, request_id=request_id)))
    assert made[0].job.job_id == made[1].job.job_id
    other = job_pb2.JobSpec(prompt="x", agent={"command": {"line": "true"}, "secrets": {"B": token()}})
    await refusal(services.jobs.CreateJob(job_pb2.CreateJobRequest(spec=other, request_id=request_id)), AlreadyExists)


async def test_a_projects_secrets_are_changed_one_at_a_time(services: Services) -> None:
    project_id = await project(services, FIRST=token())
    value = token()
    change = catalog_pb2.SetProjectSecretRequest(project_id=project_id, name="SECOND", value=value)
    answer = await services.catalog.SetProjectSecret(change)
    assert dict(answer.project.secrets) == {"FIRST": "", "SECOND": ""}
    removal = catalog_pb2.DeleteProjectSecretRequest(project_id=project_id, name="FIRST")
    for _ in range(2):
        assert dict((await services.catalog.DeleteProjectSecret(removal)).project.secrets) == {"SECOND": ""}
    line = 'test -z "$FIRST" && test "$SECOND" = "$(echo "$EXPECTED" | base64 -d)"'
    environment = {"EXPECTED": base64.b64encode(value.encode()).decode()}
    job = await services.run(line, project_id=project_id, agent={"environment": environment})
    assert job.state == job_pb2.Job.STATE_SUCCEEDED, job.message
