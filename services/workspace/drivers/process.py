"""Runs the system's tools for work on whole trees: off the event loop, and killed when the caller is cancelled.

`cp` and `rm` walk trees of any depth without following links out of them, and do not hold the interpreter lock.
"""

import asyncio
import os
from contextlib import suppress

# Their messages are searched for "No space left on device"; they need nothing else of the environment.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
_COMPLAINT_BYTES = 16 * 1024


async def run(*argv: str | os.PathLike[str]) -> str | None:
    """Run a program to its end. Return None when it succeeded, else the beginning of its error output.

    Cancelled, it kills the program first.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
        start_new_session=True,  # Ctrl-C in a terminal is for the service, which stops this itself
    )
    try:
        complaints = await _read_beginning(process.stderr)
        code = await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
    return None if code == 0 else complaints.decode("utf-8", "replace").strip() or f"exit code {code}"


async def _read_beginning(stream: asyncio.StreamReader | None) -> bytes:
    """Read everything, so that the writer never blocks; keep what fits into a log line."""
    kept = b""
    while stream is not None and (chunk := await stream.read(_COMPLAINT_BYTES)):
        kept += chunk[: _COMPLAINT_BYTES - len(kept)]
    return kept
