"""What is told of an attempt beside its stages. Everything here works inside the caller's transaction."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.schema.clock import NOW
from services.gateway.schema.jobs import stages
from services.gateway.schema.sql import insert_if_absent
from services.lifecycle.model.states import StageState


async def tell(connection: AsyncConnection, job_id: str, attempt: int, name: str, text: str) -> bool:
    """Tell something in the timeline of an attempt, as a stage that is done; return False for a name that is taken."""
    of_attempt = (stages.c.job_id == job_id, stages.c.attempt == attempt)
    number = (await connection.execute(select(func.count()).where(*of_attempt))).scalar_one() + 1
    key = {"job_id": job_id, "attempt": attempt, "name": name}
    told = {"number": number, "state": StageState.DONE, "result": "", "message": text}
    return await insert_if_absent(connection, stages, key | told | {"start_time": NOW, "end_time": NOW})
