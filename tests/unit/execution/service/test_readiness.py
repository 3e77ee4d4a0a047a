"""Whether executions could run here is found out by trying, again and again while it does not work."""

from pathlib import Path

import pytest

from services.common.errors import ServiceError
from services.execution.service.admission import Admission
from services.execution.service.readiness import Readiness
from services.execution.settings import ExecutionSettings
from services.sandbox.errors import SandboxUnavailableError

MORE_THAN_THERE_IS = 1 << 60


def readiness(tmp_path: Path, tries: list[bool], disk_reserve_bytes: int = 0, **settings: object) -> Readiness:
    """Make one whose sandbox works as `tries` says, time after time."""

    def try_sandbox() -> None:
        if not tries.pop(0):
            raise SandboxUnavailableError("bubblewrap is not installed", "Install it")

    admission = Admission(tmp_path, 2, memory_reserve_bytes=0, disk_reserve_bytes=disk_reserve_bytes, load=None)
    return Readiness(admission, ExecutionSettings(**settings), try_sandbox)


async def reason(check: object) -> str:
    try:
        await check()  # type: ignore[operator]
    except ServiceError as error:
        return f"{error.reason}: {error.message}"
    return ""


async def test_a_broken_sandbox_is_tried_again_and_one_that_works_is_trusted_for_a_while(tmp_path: Path) -> None:
    tries = [False, False, True]
    ready = readiness(tmp_path, tries)
    assert await reason(ready.check_sandbox) == "SANDBOX_UNAVAILABLE: bubblewrap is not installed. Install it"
    assert await reason(ready.check_sandbox)
    for _ in range(3):
        assert await reason(ready.check_sandbox) == ""
    assert tries == []


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"sandbox_tier": "none", "allowed_tiers": "none"}, ""),
        ({"read_only_paths": "/no/such/agent"}, "READ_ONLY_PATHS names /no/such/agent"),
        ({"sandbox_tier": "none", "allowed_tiers": "none", "read_only_paths": "/no/such/agent"}, ""),
        ({"sandbox_tier": "container", "container_engine": "docker"}, "container"),
    ],
)
async def test_the_tier_of_executions_that_name_none_is_tried(tmp_path: Path, settings: dict, why: str) -> None:
    told = await reason(readiness(tmp_path, [], **settings).check_sandbox)
    assert why in told
    assert bool(why) == bool(told)


async def test_too_little_disk_space_is_a_trouble_and_many_executions_are_not(tmp_path: Path) -> None:
    assert "NODE_BUSY" in await reason(readiness(tmp_path, [], MORE_THAN_THERE_IS).check_resources)
    assert await reason(readiness(tmp_path, []).check_resources) == ""
