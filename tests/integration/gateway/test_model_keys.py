"""The key of a provider, from the catalogue to the provider, and nowhere else."""

import secrets

from boatyard.agent.v1 import model_pb2
from boatyard.gateway.v1 import catalog_pb2, job_pb2
from google.protobuf.field_mask_pb2 import FieldMask

from services.common.ids import new_id
from tests.integration.gateway.test_secrets import files_with, process_texts
from tests.kit.model_provider import Reply, providing
from tests.kit.services import Services

CALL = "curl -sS --max-time 60 -H x-api-key:$ANTHROPIC_API_KEY -d '{}' $ANTHROPIC_BASE_URL/v1/messages"
LOOKS = "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'; ps -ef; cat ~/.* 2>/dev/null"


async def test_the_key_reaches_its_provider_and_is_shown_nowhere(services: Services) -> None:
    """Not in the sandbox's environment, arguments and files, nor in events, answers, logs, files and databases."""
    old, key = (f"sk-sworn-{secrets.token_hex(12)}" for _ in range(2))
    project_id, provider_id = new_id("project"), new_id("provider")
    project = catalog_pb2.Project(project_id=project_id)
    await services.catalog.CreateProject(catalog_pb2.CreateProjectRequest(project=project))
    async with providing(Reply([f"it says {key}\n".encode(), b"message_stop"])) as at:
        provider = catalog_pb2.Provider(
            provider_id=provider_id,
            project_id=project_id,
            wire=model_pb2.MODEL_WIRE_MESSAGES,
            base_url=at.url,
            keys=[old],
        )
        answers: list[object] = [
            await services.catalog.CreateProvider(catalog_pb2.CreateProviderRequest(provider=provider))
        ]
        provider.keys[:] = [key]
        update = catalog_pb2.UpdateProviderRequest(provider=provider, update_mask=FieldMask(paths=["keys"]))
        answers.append(await services.catalog.UpdateProvider(update))
        agent = {"providers": [provider_id]}
        job = await services.submit(f"{LOOKS}; {CALL}; sleep 1", project_id=project_id, agent=agent)
        while not at.asked:
            await services.jobs.GetJob(job_pb2.GetJobRequest(job_id=job.job_id))
        seen_processes = process_texts()
        job = await services.ended(job.job_id)
    output = await services.output(job.execution_ids[-1])
    listed = await services.jobs.ListJobs(job_pb2.ListJobsRequest(filter={"project_id": project_id}))
    providers = await services.catalog.ListProviders(catalog_pb2.ListProvidersRequest(project_id=project_id))

    assert b"message_stop" in output, (job.reason, job.message, output[-500:])
    assert [asked.headers["x-api-key"] for asked in at.asked] == [key]
    assert b"it says " + b"*" * len(key) in output, "the agent is not told it either"
    everything = str([answers, job, listed, providers]).encode() + output + seen_processes
    assert [value for value in (old, key) if value.encode() in everything] == []
    assert files_with(services.root, [old, key]) == []
