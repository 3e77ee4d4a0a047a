"""A result that is not all that the agent left: the job fails and keeps it, or goes on where somebody has said so."""

from boatyard.gateway.v1 import job_pb2, runtime_pb2
from boatyard.git.v1.git_pb2 import Caveat

from tests.kit.repos import Repo
from tests.kit.services import Services

LEAVES = "cat > /dev/null; echo work > work; echo k > s3cret-key; chmod 0 s3cret-key; echo 1 > lib/inside"
SECRET = "s3cret-key"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 5\n"


async def _repository(services: Services, remote: Repo, source: Repo) -> str:
    source.git("update-index", "--add", "--cacheinfo", f"160000,{source.head()},lib")
    source.git("commit", "--quiet", "--message=with a submodule")
    source.git("push", "--quiet", str(remote.path), "HEAD:main")
    return await services.repository(remote)


async def test_an_incomplete_result_is_kept_and_told_or_accepted(services: Services, remote: Repo) -> None:
    source = Repo(remote.path.parent / "source")
    repository = await _repository(services, remote, source)
    asked = {"repository_id": repository, "agent": {"secrets": {"KEY": SECRET}}}
    failed = await services.run(LEAVES, policy={"verify_command": "exit 1"}, **asked)
    assert (failed.state, failed.reason) == (job_pb2.Job.STATE_FAILED, "RESULT_INCOMPLETE")
    assert not failed.output.HasField("verification")
    assert failed.output.snapshot_id
    kinds = [Caveat.KIND_EMPTY_SUBMODULES, Caveat.KIND_SUBMODULE_CONTENT, Caveat.KIND_UNREADABLE]
    assert [each.kind for each in failed.output.caveats] == kinds
    told = {stage.name: stage.message for stage in failed.timeline}
    assert "submodules are not fetched, their directories are empty: lib" in told["base"]
    for text in (told["take"], told["snapshot"], failed.message):
        assert "inside submodules is not in the result: lib" in text
        assert SECRET not in text

    (patch,) = failed.output.artifacts
    assert patch.name == ".boatyard/submodules/lib.patch"
    reading = runtime_pb2.ReadArtifactRequest(execution_id=failed.execution_ids[-1], name=patch.name)
    read = b"".join([piece.data async for piece in services.runtime.ReadArtifact(reading)])
    assert b"+++ b/inside\n@@ -0,0 +1 @@\n+1\n" in read

    snapshot = runtime_pb2.GetSnapshotRequest(snapshot_id=failed.output.snapshot_id)
    assert SECRET not in str(await services.runtime.GetSnapshot(snapshot))
    listed = await services.runtime.ListSnapshots(runtime_pb2.ListSnapshotsRequest())
    assert failed.output.snapshot_id in {each.snapshot_id for each in listed.snapshots}
    assert SECRET not in str(listed)

    await services.jobs.PushJob(job_pb2.PushJobRequest(job_id=failed.job_id))  # by somebody who knows what it lacks
    pushed = await services.ended(failed.job_id)
    assert pushed.reason == "VERIFY_FAILED"
    assert list(pushed.output.caveats) == list(failed.output.caveats)
    assert pushed.output.agent_commits == failed.output.agent_commits

    accepted = await services.run(LEAVES, policy={"incomplete": "INCOMPLETE_ACCEPT"}, **asked)
    assert accepted.state == job_pb2.Job.STATE_SUCCEEDED
    assert accepted.output.incomplete
    assert accepted.output.pushed
    assert list(accepted.output.caveats) == list(failed.output.caveats)
    assert remote.git("show", f"{accepted.output.branch}:work") == "work"
    assert SECRET not in str(accepted.output)


async def test_what_a_base_lacks_fails_a_job_only_where_somebody_has_said_so(services: Services, remote: Repo) -> None:
    source = Repo(remote.path.parent / "source")
    repository = await _repository(services, remote, source)
    works = "cat > /dev/null; echo work > work"
    strict = {"repository_id": repository, "policy": {"incomplete": "INCOMPLETE_STRICT"}}
    failed = await services.run(works, **strict)
    assert (failed.state, failed.reason) == (job_pb2.Job.STATE_FAILED, "BASE_INCOMPLETE")
    assert "lib: no URL in .gitmodules" in failed.message
    assert "agent" not in {stage.name for stage in failed.timeline}
    assert [each.kind for each in failed.output.caveats] == [Caveat.KIND_EMPTY_SUBMODULES]
    for incomplete in ("INCOMPLETE_FAIL", "INCOMPLETE_ACCEPT"):
        asked = {"repository_id": repository, "policy": {"incomplete": incomplete}}
        assert (await services.run(works, **asked)).state == job_pb2.Job.STATE_SUCCEEDED
    source.git("rm", "--quiet", "--cached", "lib")
    source.write({".gitattributes": "*.bin filter=lfs\n", "a.bin": LFS})
    source.git("add", "--all")
    source.git("commit", "--quiet", "--message=a pointer")
    source.git("push", "--quiet", str(remote.path), "HEAD:main")
    failed = await services.run(works, **strict)
    assert (failed.reason, "Git LFS" in failed.message) == ("BASE_INCOMPLETE", True)
    pointers = {"incomplete": "INCOMPLETE_STRICT", "git_lfs": False}
    assert (await services.run(works, repository_id=repository, policy=pointers)).state == job_pb2.Job.STATE_SUCCEEDED
