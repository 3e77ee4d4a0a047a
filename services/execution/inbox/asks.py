"""What an execution asks of whoever started it before it goes on, in the run directory.

    asks/…       see `questions`; a question is one ask, and is removed when that is over
    asks/bell    a named pipe by which those who wait for answers are told that there is one

Standard library only.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from services.agent.asks import ModelGate, Reservation, ReservationAnswer
from services.execution.inbox.questions import Questions


class AskOverError(Exception):
    """There is no such ask, or none any more."""


class Asks:
    """The asks of one execution."""

    def __init__(self, run: Path, *, must_answer: bool = True) -> None:
        """Without `must_answer`, what nobody answers may be done all the same."""
        self.must_answer = must_answer
        self._questions = Questions(run / "asks")
        self._bell = run / "asks" / "bell"

    def create(self) -> None:
        """Make the directories; an execution without them asks nothing."""
        self._questions.create()
        os.mkfifo(self._bell, 0o600)

    def ask(self, ask_id: str, reservation: Reservation) -> None:
        """Write an ask down. It need not be durable: with the machine, the execution ends too."""
        self._questions.ask(ask_id, asdict(reservation), durable=False)

    def open(self) -> list[tuple[str, ReservationAnswer | None]]:
        """Return all asks that are not over, with their answers."""
        return [(ask_id, self.answer_to(ask_id)) for ask_id in self._questions.open()]

    def answer(self, ask_id: str, answer: ReservationAnswer) -> ReservationAnswer:
        """Answer an ask durably, and return the answer that holds, which is the first. Raises AskOverError."""
        if not self._questions.exists or self._questions.question(ask_id) is None:
            raise AskOverError(ask_id)
        gates = [asdict(gate) | {"open_time": _text(gate.open_time)} for gate in answer.gates]
        fields = asdict(answer) | {"retry_time": _text(answer.retry_time), "gates": gates}
        holds = _answer(self._questions.answer(ask_id, fields))
        self._ring()
        return holds

    def answer_to(self, ask_id: str) -> ReservationAnswer | None:
        """Return the answer to an ask, None when there is none yet."""
        fields = self._questions.answer_to(ask_id)
        return None if fields is None else _answer(fields)

    def end(self, ask_id: str) -> None:
        """Remove an ask that is over."""
        self._questions.forget(ask_id)

    def bell(self) -> int:
        """Return a descriptor that becomes readable when something was answered. It never comes to its end."""
        return os.open(self._bell, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # nobody waits, or it rings already
            fd = os.open(self._bell, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(fd, b"!")
            finally:
                os.close(fd)


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _answer(fields: Mapping[str, Any]) -> ReservationAnswer:
    return ReservationAnswer(
        is_granted=bool(fields["is_granted"]),
        reason=str(fields.get("reason", "")),
        message=str(fields.get("message", "")),
        retry_time=_time(fields.get("retry_time")),
        is_last_warning=bool(fields.get("is_last_warning")),
        gates=tuple(ModelGate(**gate | {"open_time": _time(gate["open_time"])}) for gate in fields.get("gates", ())),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
