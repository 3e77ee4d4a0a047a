"""What a run asks and is answered: JSON documents in a directory, of which the first answer to a question stays.

    lock             held for a moment by whoever answers
    questions/<id>   written by the runner
    answers/<id>     written by the service

An answer is durable before anybody hears of it, so the death of either end loses none. Standard library only.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from services.common.files import write_whole


class Questions:
    """The questions of one run, by their ids, which are names of files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._questions = path / "questions"
        self._answers = path / "answers"

    @property
    def exists(self) -> bool:
        """True when the run may ask questions of this kind."""
        return self._path.is_dir()

    def create(self) -> None:
        """Make the directories."""
        for directory in (self._path, self._questions, self._answers):
            directory.mkdir(mode=0o700)
        with self.locked():
            pass

    def ask(self, question_id: str, question: Mapping[str, Any], *, durable: bool = True) -> None:
        """Write a question down for whoever may answer it."""
        write_whole(self._questions / question_id, json.dumps(question).encode(), durable=durable)

    def question(self, question_id: str) -> dict[str, Any] | None:
        """Return a question, None when it was not asked, or is over."""
        return _read(self._questions / question_id)

    def open(self) -> list[str]:
        """Return the ids of all questions that are not over, in the order of their numbers."""
        with contextlib.suppress(FileNotFoundError):
            asked = [file.name for file in self._questions.iterdir() if not file.name.startswith(".")]
            return sorted(asked, key=lambda name: (len(name), name))
        return []

    def answer(self, question_id: str, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a question; return the answer that holds, which is the first."""
        with self.locked():
            known = self.answer_to(question_id)
            if known is None:
                write_whole(self._answers / question_id, json.dumps(answer).encode(), durable=True)
            return known or dict(answer)

    def answer_to(self, question_id: str) -> dict[str, Any] | None:
        """Return the answer to a question, None when there is none."""
        return _read(self._answers / question_id)

    def forget(self, question_id: str) -> None:
        """Remove a question that is over, and its answer."""
        with self.locked():
            (self._questions / question_id).unlink(missing_ok=True)
            (self._answers / question_id).unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who changes the directory."""
        fd = os.open(self._path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        fields: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return fields
