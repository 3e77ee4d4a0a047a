"""Messages for the agent of a running execution, and answers to its questions."""

import asyncio

from services.agent.asks import ReservationAnswer
from services.common.db.fences import Fences
from services.common.errors import AlreadyExists, Exhausted, FailedPrecondition, NotFound
from services.common.fence import current_fence
from services.execution.inbox.asks import AskOverError, Asks
from services.execution.inbox.messages import (
    MAX_MESSAGES,
    ClosedError,
    Inbox,
    Message,
    MessageReusedError,
    PermissionAnswer,
    PermissionRequest,
    TooManyMessagesError,
)
from services.execution.model import Execution
from services.execution.service.manager import ExecutionManager, ended_already


class Messaging:
    """Brings messages and answers to executions, and their questions to people."""

    def __init__(self, executions: ExecutionManager, fences: Fences) -> None:
        self._executions = executions
        self._fences = fences

    async def send(self, execution_id: str, message: Message) -> None:
        """Store a message for the agent durably.

        Raises:
            NotFound: there is no such execution.
            AlreadyExists: REQUEST_ID_REUSED, the message's id has another text.
            FailedPrecondition: STALE_FENCE, ENGINE_TAKES_NO_MESSAGES, or EXECUTION_STATE.
            Exhausted: TOO_MANY_MESSAGES.
        """
        execution, inbox = await self._inbox(execution_id)
        if not inbox.exists:
            if execution.state.is_final:
                raise ended_already(execution)
            text = f"the engine of execution {execution_id} takes no messages while it works"
            raise FailedPrecondition("ENGINE_TAKES_NO_MESSAGES", text, execution_id)
        try:
            await asyncio.to_thread(inbox.post, message)
        except ClosedError:
            raise ended_already(await self._executions.get(execution_id)) from None
        except MessageReusedError:
            text = f"message {message.message_id} was sent to execution {execution_id} with another text"
            raise AlreadyExists("message", message.message_id, reason="REQUEST_ID_REUSED", message=text) from None
        except TooManyMessagesError:
            text = f"execution {execution_id} has been sent {MAX_MESSAGES} messages, the most that it takes"
            raise Exhausted("TOO_MANY_MESSAGES", text, quota=f"execution:{execution_id}") from None

    async def resolve(self, execution_id: str, permission_id: str, answer: PermissionAnswer) -> PermissionAnswer:
        """Answer a question of the agent; return the answer that holds, which is the first.

        Raises:
            NotFound: there is no such execution, or it has asked no such question.
            FailedPrecondition: STALE_FENCE, or EXECUTION_STATE when it ended without an answer.
        """
        execution, inbox = await self._inbox(execution_id)
        if await asyncio.to_thread(inbox.request, permission_id) is None:
            raise NotFound("permission", permission_id)
        if execution.state.is_final:
            known = await asyncio.to_thread(inbox.answer_to, permission_id)
            if known is None:
                raise ended_already(execution)
            return known
        return await asyncio.to_thread(inbox.answer, permission_id, answer)

    async def answer(self, execution_id: str, ask_id: str, answer: ReservationAnswer) -> ReservationAnswer:
        """Answer what an execution asks of whoever started it; return the answer that holds, which is the first.

        Raises:
            NotFound: there is no such execution, or it has no such ask, which may be over.
            FailedPrecondition: STALE_FENCE, or EXECUTION_STATE when it ended without an answer.
        """
        await self._fences.check(current_fence())
        execution = await self._executions.get(execution_id)
        asks = Asks(self._executions.run_directory(execution_id).path)
        if execution.state.is_final:
            known = await asyncio.to_thread(asks.answer_to, ask_id)
            if known is None:
                raise ended_already(execution)
            return known
        try:
            return await asyncio.to_thread(asks.answer, ask_id, answer)
        except AskOverError:
            raise NotFound("ask", ask_id) from None

    async def pending(self, execution: Execution) -> list[PermissionRequest]:
        """Return the agent's questions that nobody has answered."""
        if execution.state.is_final:
            return []
        return await asyncio.to_thread(Inbox(self._executions.run_directory(execution.execution_id).path).pending)

    async def _inbox(self, execution_id: str) -> tuple[Execution, Inbox]:
        await self._fences.check(current_fence())
        execution = await self._executions.get(execution_id)
        return execution, Inbox(self._executions.run_directory(execution_id).path)
