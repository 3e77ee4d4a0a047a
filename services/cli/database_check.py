"""What a gateway says of its database, for `boatyard doctor`."""

from collections.abc import Iterator

from boatyard.gateway.v1 import admin_pb2

from services.cli.clients import with_gateway
from services.cli.exit_codes import NotAllowedError
from services.cli.findings import FAIL, OK, Finding
from services.common.errors import ServiceError

_TIMEOUT_S = 5.0
_MEND = "bring all cells of this database to one version of Boatyard, or go back to a copy of it from before"


def database() -> Iterator[Finding]:
    """Ask the gateway; one that does not answer, or not us, is told of by another check."""
    try:
        request = admin_pb2.CheckDatabaseRequest()
        state = with_gateway(lambda gateway: gateway.ask(gateway.admin.CheckDatabase(request, timeout=_TIMEOUT_S)))
    except (ServiceError, NotAllowedError):
        return
    of_schema = f"schema version {state.schema_version}"
    if state.schema_faults:
        yield Finding("database", FAIL, f"{of_schema}: {'; '.join(state.schema_faults)}", _MEND)
        return
    latency = state.latency.ToTimedelta().total_seconds() * 1000
    answers = f"answers in {latency:.1f} ms"
    yield Finding("database", OK, f"{state.kind} {state.server_version}, {of_schema}, {answers}")
