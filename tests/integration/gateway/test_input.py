"""What a job works on is in its workspace before its agent starts, and in none of its results."""

import pytest
from boatyard.gateway.v1 import job_pb2

from tests.kit.repos import Repo
from tests.kit.services import Services

SUCCEEDED = job_pb2.Job.STATE_SUCCEEDED
FILES = [{"name": "rows.csv", "content": b"1,2\n"}, {"name": "deep/er/x.bin", "content": b"\0\xff"}]


async def test_without_a_repository_an_agent_works_on_its_input(services: Services) -> None:
    command = 'cat .boatyard/input/rows.csv .boatyard/input/deep/er/x.bin "$BOATYARD_INPUT"; cat'
    job = await services.run(command, files=FILES, data='{"top": 3}')
    assert (job.state, job.reason) == (SUCCEEDED, "")
    written = job.output.log_tail
    assert written.startswith('1,2\n\0\N{REPLACEMENT CHARACTER}{"top": 3}')
    assert job.output.log_tail_is_lossy
    assert "- .boatyard/input/rows.csv\n" in written, "the prompt says where it lies"
    assert [(file.name, file.size_bytes, file.content) for file in job.spec.files] == [
        ("rows.csv", 4, b""),
        ("deep/er/x.bin", 2, b""),
    ]
    assert job.spec.data == '{"top": 3}'


async def test_input_is_no_part_of_the_result(services: Services, remote: Repo) -> None:
    repository = await services.repository(remote)
    command = (
        "cp .boatyard/input/rows.csv copied.csv; git status --porcelain; git add -A;"
        " git -c user.name=a -c user.email=a@b commit -qm mine; echo more > more"
    )
    job = await services.run(command, repository_id=repository, files=FILES, data="{}")
    assert (job.state, job.reason) == (SUCCEEDED, "")
    assert job.output.log_tail == "?? copied.csv\n"
    assert [change.path for change in job.output.files_changed] == ["copied.csv", "more"]


@pytest.mark.slow
async def test_what_a_repository_has_in_the_way_of_input_is_not_followed(services: Services, remote: Repo) -> None:
    outside = remote.path.parent / "outside"
    outside.mkdir()
    work = Repo.sample(remote.path.parent / "work")
    (work.path / ".boatyard").symlink_to(outside)
    work.commit("a link")
    work.git("push", "--quiet", str(remote.path), "HEAD:refs/heads/trap")
    repository = await services.repository(remote)
    job = await services.run(
        "cat .boatyard/input/rows.csv", repository_id=repository, revision="trap", files=FILES, policy={"publish": 2}
    )
    assert (job.state, job.output.log_tail) == (SUCCEEDED, "1,2\n")
    assert list(outside.iterdir()) == []
