"""What a machine lacks for executions is found at the start, not when somebody needs it."""

from pathlib import Path

import pytest

from services.execution.service.capabilities import container
from services.execution.settings import ExecutionSettings

# A client that answers for an engine which has the image `here`, and starts containers of it.
CLIENT = """#!/bin/sh
case "$1" in
info) echo '{"ServerVersion": "27.1", "MemoryLimit": true, "PidsLimit": true, "SecurityOptions": ["name=seccomp"]}' ;;
image) for last; do :; done; test "$last" = here ;;
run) case "$*" in *" here -c :") ;; *) exit 1 ;; esac ;;
esac
"""
UNTRIED = "no container was tried"


@pytest.mark.parametrize(
    ("settings", "lacks", "is_tried"),
    [
        ({"container_image": "here"}, [], True),
        ({"container_image": "gone"}, ["gone"], False),
        ({"container_image": "gone", "container_images": "here,lost"}, ["gone", "lost"], False),
        ({"container_image": "here", "container_images": "lost,ghcr.io/team/*"}, ["lost"], True),
        ({"container_images": "ghcr.io/team/*"}, [], False),
        ({"container_image": "gone", "container_pull": "missing"}, [], False),
    ],
)
def test_images_that_jobs_may_name_and_that_are_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], lacks: list[str], is_tried: bool
) -> None:
    client = tmp_path / "docker"
    client.write_text(CLIENT)
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = container(ExecutionSettings(container_engine="docker", **settings))  # type: ignore[arg-type]
    assert found.provided_by == "docker 27.1"
    assert [
        name for name in ("here", "gone", "lost") if f"no image '{name}' on this machine" in found.complaint
    ] == lacks
    assert (UNTRIED not in found.complaint) == is_tried
    assert ("docker pull" in found.complaint) == bool(lacks)
