"""Old events are packed, then removed, and a viewer never gets a silent gap."""

import asyncio
from pathlib import Path

from boatyard.execution.v1 import execution_pb2 as pb

from services.common.errors import OutOfRange
from tests.integration.execution.service import State, running
from tests.integration.execution.test_contract import refused


async def test_packed_events_are_read_as_before(directory: Path) -> None:
    async with running(directory, PACK_AFTER_HOURS="0", SWEEP_SECONDS="0.1") as client:
        await client.run("old", "seq 100000")
        run = client.service.run_directory("old")
        async with asyncio.timeout(60):
            while (run / "events").exists():
                await asyncio.sleep(0.05)
        seen = await client.watch("old")
        seen.check_whole()
        assert seen.output == b"".join(b"%d\n" % number for number in range(1, 100001))
        again = await client.watch("old", first=seen.end.last_sequence)
        assert [event.sequence for event in again.events] == [seen.end.last_sequence]


async def test_what_has_no_room_is_removed_oldest_first_and_that_is_said(directory: Path) -> None:
    async with running(directory, KEEP_BYTES="6000000", PACK_AFTER_HOURS="9", SWEEP_SECONDS="0.1") as client:
        await client.start("alive", "head -c 9000000 /dev/zero; echo ready; sleep 60")
        await client.watch("alive", until=b"ready")
        old = await client.run("old", "head -c 4000000 /dev/zero")
        await client.run("new", "head -c 4000000 /dev/zero")
        async with asyncio.timeout(60):
            while client.service.run_directory("old").exists():
                await asyncio.sleep(0.05)
        kept = await client.get("old")
        assert (kept.state, kept.events_trimmed, kept.last_sequence) == (State.STATE_SUCCEEDED, True, old.last_sequence)
        error = await refused(client.stub.WatchEvents(pb.WatchEventsRequest(execution_id="old")).read())
        assert isinstance(error, OutOfRange)
        assert (error.reason, error.first) == ("EVENTS_TRIMMED", old.last_sequence + 1)
        end = await client.watch("old", first=old.last_sequence + 1)
        assert end.end == kept
        assert len((await client.watch("new")).output) == 4_000_000
        assert client.service.run_directory("alive").exists()
