"""Run by `python -m services.gateway.cells.database_check`: checks a database without a gateway, and changes nothing.

BOATYARD_DATABASE_URL, and BOATYARD_DATABASE_LISTEN_URL for a pooler, say which; without it, a file that need not exist.
Prints one line of JSON for `boatyard doctor`, or ends as a gateway does that could not start.
"""

import json
import os
import sys
from pathlib import Path

from services.common import program
from services.common.db.engine import sqlite_url
from services.common.home import Home
from services.gateway.cells.state import StateStore
from services.gateway.schema.database import database_to_check


async def _main() -> None:
    url, listen_url = (os.environ.get(f"BOATYARD_DATABASE_{name}", "") for name in ("URL", "LISTEN_URL"))
    url = url or sqlite_url(Home.from_environment().root / "gateway" / "gateway.db")
    if _is_missing_file(url):
        sys.stdout.write("{}\n")
        return
    async with database_to_check(url, listen_url) as engine:
        state = await StateStore(engine).database()
    found = {
        "kind": state.kind,
        "server_version": state.server_version,
        "schema_version": state.schema_version,
        "schema_faults": state.schema_faults,
        "latency_ms": state.latency * 1000,
    }
    sys.stdout.write(json.dumps(found) + "\n")


def _is_missing_file(url: str) -> bool:
    """Return True for a database in a file that does not exist, which opening it would make."""
    is_default = not os.environ.get("BOATYARD_DATABASE_URL")
    file = Path(url.partition(":///")[2])
    return url.startswith("sqlite:") and not file.exists() and (is_default or file.parent.is_dir())


if __name__ == "__main__":
    program.run("database", _main)
