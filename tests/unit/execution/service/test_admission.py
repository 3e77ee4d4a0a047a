"""A machine takes one more execution or refuses it, by what it has; a refusal says when to come back."""

from dataclasses import replace
from pathlib import Path

import pytest

from services.common.errors import Exhausted
from services.execution.service.admission import LEAST_INODES, Admission, available_memory
from tests.kit.disks import needs_mount, small_disk, use_up_inodes

MORE_THAN_THERE_IS = 1 << 60


@pytest.fixture
def admission(tmp_path: Path) -> Admission:
    return Admission(tmp_path, max_executions=2, memory_reserve_bytes=0, disk_reserve_bytes=0, load=None)


def test_one_more_is_taken_where_there_is_room(admission: Admission) -> None:
    admission.check(0)
    admission.check(1)


@pytest.mark.parametrize(
    ("change", "resource"),
    [
        ({"memory_reserve_bytes": MORE_THAN_THERE_IS}, "memory"),
        ({"disk_reserve_bytes": MORE_THAN_THERE_IS}, "disk"),
        ({"load": -1.0}, "load"),
    ],
)
def test_a_refusal_says_what_is_short_and_when_to_come_back(
    admission: Admission, change: dict[str, float], resource: str
) -> None:
    with pytest.raises(Exhausted) as caught:
        replace(admission, **change).check(0)
    assert (caught.value.reason, caught.value.metadata["resource"]) == ("NODE_BUSY", resource)
    assert caught.value.retry_after > 0
    assert "BOATYARD_EXECUTION_" in caught.value.message


def test_as_many_as_may_be(admission: Admission) -> None:
    with pytest.raises(Exhausted) as caught:
        admission.check(2)
    assert caught.value.reason == "TOO_MANY_EXECUTIONS"


def test_a_control_group_may_leave_less_than_the_machine(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    assert available_memory(None, meminfo) == 8000 * 1024
    group = tmp_path / "v1"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text("1000000\n")
    (group / "memory.usage_in_bytes").write_text("900000\n")
    (group / "memory.stat").write_text("cache 0\ntotal_inactive_file 50000\n")
    assert available_memory(group, meminfo) == 150_000
    group = tmp_path / "v2"
    group.mkdir()
    (group / "memory.max").write_text("max\n")
    assert available_memory(group, meminfo) == 8000 * 1024
    (group / "memory.max").write_text("2000000\n")
    (group / "memory.current").write_text("500000\n")
    (group / "memory.stat").write_text("inactive_file 0\n")
    assert available_memory(group, meminfo) == 1_500_000


@needs_mount
def test_a_machine_without_inodes_is_busy(admission: Admission, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", inodes=LEAST_INODES + 5) as disk:
        admission = replace(admission, runs=disk)
        admission.check(0)
        use_up_inodes(disk)
        with pytest.raises(Exhausted, match="inodes are free") as caught:
            admission.check(0)
        assert (caught.value.reason, caught.value.metadata["resource"]) == ("NODE_BUSY", "inodes")
