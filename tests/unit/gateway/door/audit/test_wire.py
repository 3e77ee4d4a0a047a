"""What is recorded of a call."""

from boatyard.agent.v1 import sandbox_pb2
from boatyard.gateway.v1 import audit_pb2, auth_pb2, catalog_pb2, coordinator_pb2, job_pb2, runtime_pb2

from services.gateway.door.audit import wire

SERVICES = ["CatalogService", "JobService", "TokenService", "CoordinatorService", "AuditService"]


def test_what_changes_something_is_recorded_but_no_heartbeats() -> None:
    assert {audit_pb2.DESCRIPTOR.package, coordinator_pb2.DESCRIPTOR.package} == {"boatyard.gateway.v1"}, "are known"
    paths = wire.recorded_methods(f"boatyard.gateway.v1.{name}" for name in SERVICES)
    names = {path.rpartition(".")[2] for path in paths}
    assert {"CatalogService/CreateProject", "JobService/CancelJob", "TokenService/RevokeToken"} <= names
    assert not names & {"CatalogService/GetProject", "JobService/WatchJob", "AuditService/ListAuditRecords"}
    assert not [name for name in names if name.startswith("CoordinatorService")]


def test_what_a_call_named_and_made() -> None:
    request = job_pb2.CreateJobRequest(
        request_id="one", spec=job_pb2.JobSpec(project_id="harbour", worker_id="ann", labels={"job_id": "a-label"})
    )
    job = job_pb2.Job(job_id="job-1", spec=request.spec, execution_ids=["exec-1"])
    assert wire.resources_of(request, job_pb2.CreateJobResponse(job=job)) == (
        "project/harbour",
        "worker/ann",
        "job/job-1",
    )
    execute = runtime_pb2.ExecuteResponse(execution_id="exec-2", job_id="job-2")
    assert wire.resources_of(runtime_pb2.ExecuteRequest(), execute) == ("execution/exec-2", "job/job-2")
    token = auth_pb2.CreateTokenResponse(token=auth_pb2.Token(token_id="token-1"), secret="boatyard_secret")
    assert wire.resources_of(auth_pb2.CreateTokenRequest(token={"project_ids": ["a", "b"]}), token) == (
        "project/a",
        "project/b",
        "token/token-1",
    )
    assert wire.resources_of(None, None) == ()


def test_that_a_call_chose_no_border() -> None:
    bare = {"agent": {"sandbox_tier": sandbox_pb2.SANDBOX_TIER_NONE}}
    request = catalog_pb2.CreateWorkerRequest(worker={"worker_id": "ann", **bare})
    assert wire.resources_of(request, None)[0] == "sandbox_tier/none"
    by_its_template = job_pb2.CreateJobResponse(job=job_pb2.Job(job_id="job-1", spec=bare))
    assert wire.resources_of(job_pb2.CreateJobRequest(), by_its_template) == ("sandbox_tier/none", "job/job-1")


def test_a_job_without_floors_is_marked() -> None:
    spec = job_pb2.JobSpec(waive_floors=True)
    assert wire.resources_of(job_pb2.CreateJobRequest(spec=spec), None) == ("floors/waived",)
    retried = job_pb2.RetryJobResponse(job=job_pb2.Job(job_id="job-1", spec=spec))
    assert wire.resources_of(job_pb2.RetryJobRequest(job_id="job-1"), retried) == ("floors/waived", "job/job-1")
    assert wire.resources_of(job_pb2.CreateJobRequest(spec=job_pb2.JobSpec()), None) == ()


def test_no_words_of_a_request_and_not_too_many_names() -> None:
    work_item = catalog_pb2.WorkItem(title="a title", related_work_item_ids=[f"item-{number}" for number in range(50)])
    resources = wire.resources_of(catalog_pb2.CreateWorkItemRequest(work_item=work_item), None)
    assert len(resources) == wire.MAX_RESOURCES
    assert wire.resources_of(job_pb2.GetJobRequest(job_id="No id: a sentence"), None) == ()
