"""What every service's `main` does around its own work: logs, one event loop, and errors that a person can mend."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from services.common import logs
from services.common.errors import StartError

EXIT_CANNOT_START = 78  # EX_CONFIG of sysexits.h: starting it again will not help before something is mended
EXIT_INTERRUPTED = 130


def run(service: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a service to its end; a StartError is one message on standard error and exit code 78.

    BOATYARD_LOG_LEVEL (INFO) says how much is logged.
    """
    level = os.environ.get("BOATYARD_LOG_LEVEL", "INFO").upper()
    logs.configure(service, level)
    try:
        asyncio.run(main())
    except StartError as error:
        sys.stderr.write(f"boatyard {service}: {error}\n")
        sys.exit(EXIT_CANNOT_START)
    except KeyboardInterrupt:  # before `serve` took the signal over: nothing has been begun
        sys.exit(EXIT_INTERRUPTED)
