"""Each service is told what is its own: secrets of the others are not in its environment."""

import pytest

from services.supervisor.plan import SERVICES
from services.supervisor.process import environment_of


@pytest.mark.parametrize(
    ("name", "owners"),
    [
        ("ANTHROPIC_API_KEY", ["gateway"]),
        ("OPENAI_API_KEY", ["gateway"]),
        ("GEMINI_API_KEY", ["gateway"]),
        ("ANTHROPIC_AUTH_TOKEN", ["gateway"]),
        ("ANTHROPIC_MODEL", ["gateway"]),
        ("BOATYARD_DATABASE_URL", ["gateway"]),
        ("BOATYARD_TOKEN", ["gateway"]),
        ("BOATYARD_GATEWAY_WEBHOOK_ALLOW", ["gateway"]),
        ("BOATYARD_GIT_FILE_ROOTS", ["git"]),
        ("AGENT_COMMAND", ["gateway"]),
        ("BOATYARD_HOME", ["execution", "gateway", "git", "workspace"]),
        ("PATH", ["execution", "gateway", "git", "workspace"]),
    ],
)
def test_who_is_told(name: str, owners: list[str]) -> None:
    told = [service for service in SERVICES if name in environment_of(service, {name: "value"})]
    assert sorted(told) == owners
