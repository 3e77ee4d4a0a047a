"""What a resource says is shown, also where it says nothing: that hides what the layers below it say."""

from typing import Any

import pytest
from boatyard.gateway.v1 import catalog_pb2

from services.cli.catalogue import _flat
from services.cli.fields import plain


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({}, []),
        ({"agent": {}, "policy": {}}, []),
        ({"agent": {"model": "m", "command": {"line": "x"}}}, [("agent.command.line", "x"), ("agent.model", "m")]),
        ({"agent": {"model": "", "command": {"line": ""}}}, [("agent.command.line", '""'), ("agent.model", '""')]),
        ({"agent": {"anthropic": {}}}, [("agent.anthropic", "{}")]),
        ({"agent": {"environment": {"A": ""}}}, [("agent.environment.A", '""')]),
        ({"policy": {"checkpoints": {}}}, [("policy.checkpoints", "{}")]),
        ({"policy": {"checkpoints": {"before": ["push"]}}}, [("policy.checkpoints.before", "push")]),
        ({"policy": {"agent_may_ask": False}}, [("policy.agent_may_ask", "False")]),
    ],
)
def test_all_that_a_layer_sets_is_shown(settings: dict[str, Any], lines: list[tuple[str, str]]) -> None:
    worker = catalog_pb2.Worker(worker_id="ann", max_running_jobs=1, **settings)
    rest = [("worker_id", "ann"), ("max_running_jobs", "1")]

    assert sorted(_flat(plain(worker))) == sorted(lines + rest)
    assert plain(catalog_pb2.Worker()).items() >= {"agent": None, "policy": None, "display_name": None}.items()


@pytest.mark.parametrize(
    ("floor", "lines"),
    [
        ({"checkpoints": {}, "limits": {}}, []),
        (
            {"limits": {"memory_bytes": 4}, "never_pushed": True},
            [("limits.memory_bytes", "4"), ("never_pushed", "True")],
        ),
    ],
)
def test_of_a_floor_what_it_demands_is_shown(floor: dict[str, Any], lines: list[tuple[str, str]]) -> None:
    shown = _flat(plain(catalog_pb2.Template(template_id="fixer", floor=floor)))

    assert sorted(shown) == sorted([("template_id", "fixer"), *((f"floor.{name}", value) for name, value in lines)])


def test_of_secrets_the_names_are_shown() -> None:
    project = catalog_pb2.Project(project_id="p", secrets={"B_KEY": "", "A_KEY": ""})
    assert ("secrets", "A_KEY, B_KEY") in _flat(plain(project))
    template = catalog_pb2.Template(template_id="t", agent={"secrets": {"KEY": ""}})
    assert ("agent.secrets", "KEY") in _flat(plain(template))
