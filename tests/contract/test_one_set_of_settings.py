"""Whoever says how an agent runs says it with the same message, in the same units and choices."""

from collections import Counter

from boatyard.agent.v1 import agent_pb2, sandbox_pb2

from services.agent.engines import ENGINES
from tests.kit.contract import files, messages

WITH_AN_AGENT = {"Template", "Worker", "WorkItem", "JobSpec", "ExecutionSpec", "GetWorkContextResponse"}


def test_all_have_the_same_settings() -> None:
    kinds = {
        name.rpartition(".")[2]: field.type_name
        for name, message in messages().items()
        for field in message.field
        if field.name == "agent"
    }
    assert kinds == dict.fromkeys(WITH_AN_AGENT, f".{agent_pb2.AgentSettings.DESCRIPTOR.full_name}")


def test_no_choice_is_declared_twice() -> None:
    inner = [
        enum.name for message in messages().values() for enum in message.enum_type if enum.name not in {"State", "Kind"}
    ]
    outer = [enum.name for file in files() for enum in file.enum_type]
    assert [name for name, count in Counter([*inner, *outer]).items() if count > 1] == []
    assert {sandbox_pb2.SandboxTier.DESCRIPTOR.name, sandbox_pb2.Network.DESCRIPTOR.name} <= set(outer)


def test_each_engine_says_what_it_is() -> None:
    cases = agent_pb2.AgentSettings.DESCRIPTOR.oneofs_by_name["engine"].fields
    assert [case.name for case in cases] == list(ENGINES)
    assert [case.name for case in cases if not case.GetOptions().HasExtension(agent_pb2.traits)] == []
