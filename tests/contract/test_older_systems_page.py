"""The page for those who come from the older systems names only what there is: every RPC, command, flag and metric."""

import importlib
import re

import click
import pytest

from tests.kit import contract
from tests.kit.contract import ROOT

PAGE = (ROOT / "docs" / "from-older-systems.md").read_text()
COMMANDS = sorted(set(re.findall(r"`boatyard ([a-z][^`]*)`", PAGE)))
METRICS = sorted(set(re.findall(r"\bagent_[a-z_]+\b", PAGE.partition("## Metrics")[2])))


def test_every_rpc_of_the_page_is_in_the_contract() -> None:
    rpcs = {".".join(method.name.rsplit(".", 2)[-2:]) for method in contract.methods()}
    named = set(re.findall(r"\b([A-Z][A-Za-z]+Service\.[A-Z][A-Za-z]+)\b", PAGE))
    assert named
    assert named - rpcs == set()


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_page_exists_and_has_its_flags(line: str) -> None:
    name, *words = line.split()
    command: click.Command = importlib.import_module(f"services.cli.commands.{name.replace('-', '_')}").command
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert {word for word in words if word.startswith("--")} - known == set()


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_of_the_page_is_in_the_list_of_metrics(metric: str) -> None:
    assert f"`{metric}`" in (ROOT / "docs" / "metrics.md").read_text()
