"""What an engine is told to make, and which engine that is."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from services.sandbox import container, container_engines, environment, shared_uid
from services.sandbox.container_engines import Engine
from services.sandbox.errors import SandboxUnavailableError
from services.sandbox.spec import Container, Mount, MountAccess, Network, Overlay, SandboxSpec, Tier

PODMAN = Engine("/usr/bin/podman", is_podman=True, is_rootless=False, has_limits=True, has_filter=True, version="5.0.0")
_HOST = {"security": {"rootless": True, "seccompEnabled": True}, "cgroupVersion": "v1", "cgroupControllers": ["memory"]}


def spec(**fields: object) -> SandboxSpec:
    values = {"argv": (b"true",), "cwd": Path("/workspace"), "tier": Tier.CONTAINER, "container": Container("app:1")}
    return SandboxSpec(**(values | fields))


def told(wanted: SandboxSpec, engine: Engine = PODMAN) -> list[str]:
    return list(container.creation(wanted, engine, "name", Path("/runs/e1/container"), "e1"))


def test_everything_after_the_image_is_ours_and_nothing_of_the_program_is_told() -> None:
    command = told(spec(argv=(b"the-argument",), environment={"NAME": b"the-value"}))
    assert command[-2:] == ["app:1", "/run/boatyard/begin"]
    assert "the-" not in " ".join(command)


def test_a_path_with_a_comma_is_one_path() -> None:
    mount = Mount(Path('/a,readonly=false,"b"'), Path("/workspace"), MountAccess.READ_ONLY)
    assert 'type=bind,"src=/a,readonly=false,""b""",dst=/workspace,readonly' in told(spec(mounts=(mount,)))


def test_a_home_that_is_kept_takes_the_place_of_the_one_in_memory() -> None:
    in_memory, kept = told(spec()), told(spec(home=Path("/kept")))
    assert [part for part in in_memory if part.startswith("/home/agent:")]
    assert not [part for part in kept if part.startswith("/home/agent:")]
    assert "type=bind,src=/kept,dst=/home/agent" in kept


def test_only_where_the_engine_is_ours_the_agent_has_another_number_inside() -> None:
    own = f"{os.geteuid()}:{os.getegid()}"
    users = {
        (True, False): ["--user", own],
        (True, True): ["--userns", "keep-id:uid=1000,gid=1000", "--user", "1000:1000"],
        (False, False): ["--userns", "host", "--user", own],
        (False, True): ["--user", "0:0"],
    }
    for (is_podman, is_rootless), wanted in users.items():
        engine = Engine("x", is_podman=is_podman, is_rootless=is_rootless, has_limits=True, has_filter=True, version="")
        command = told(spec(), engine)
        named = [command[i : i + 2] for i, part in enumerate(command) if part in ("--user", "--userns")]
        assert [part for pair in named for part in pair] == wanted


def test_a_container_cannot_queue_all_signals_of_our_user() -> None:
    signals = shared_uid.pending_signals()
    assert f"--ulimit sigpending={signals}:{signals}" in " ".join(told(spec()))


def test_an_engine_without_limits_is_not_told_any() -> None:
    bounded = spec(container=Container("app:1", memory_bytes=1 << 30, processes=10))
    assert {"--memory", "--pids-limit"} <= set(told(bounded))
    weak = Engine("x", is_podman=True, is_rootless=True, has_limits=False, has_filter=True, version="4.3.1")
    assert not {"--memory", "--pids-limit"} & set(told(bounded, weak))
    assert weak.weaknesses


def test_what_no_container_has_is_refused() -> None:
    layers = Overlay((Path("/base"),), Path("/upper"), Path("/work"), Path("/workspace"))
    with pytest.raises(SandboxUnavailableError):
        told(spec(mounts=(layers,)))


@pytest.mark.parametrize("network", Network)
def test_the_engine_gives_no_network_whatever_a_container_reaches(network: Network) -> None:
    command = told(spec(network=network))
    assert [command[at + 1] for at, part in enumerate(command) if part == "--network"] == ["none"]
    assert any("dst=/etc/resolv.conf" in part for part in command) == (network is not Network.NONE)


def test_the_script_hands_on_arguments_and_environment_whatever_is_in_them(tmp_path: Path) -> None:
    nasty = b"it's $HOME `id` \\ \"\n\xff!*"
    made = container.script(
        spec(
            argv=(b"printf", b"%s|", nasty),
            environment={"OWN": nasty, "PATH": environment.base()["PATH"]},
            cwd=tmp_path,
        ),
        has_input=False,
    )
    desk = tmp_path / "desk"
    desk.mkdir()
    for name in ("out", "err", "status"):
        (desk / name).touch()
    (desk / "life").write_bytes(b"go\n")
    # What ends all others when we end is for a container alone; here it would be everybody's end.
    lines = made.replace(bytes(container.CONTAINER_DIRECTORY), bytes(desk)).splitlines(keepends=True)
    script = b"".join(line for line in lines if b"kill -KILL -1" not in line)
    (desk / "begin").write_bytes(script)
    subprocess.run(["/bin/sh", desk / "begin"], check=True, timeout=60, env={"PATH": os.defpath})
    assert (desk / "out").read_bytes() == nasty + b"|"
    assert (desk / "err").read_bytes() == b""
    status = (desk / "status").read_bytes().splitlines()
    assert (status[0], status[-1]) == (container.BEGAN, container.ENDED + b" 0")


def client(directory: Path, name: str, said: object, code: int = 0) -> None:
    """Put a program called `name` there that says `said` of its engine."""
    path = directory / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(said)}\nEND\necho no daemon >&2\nexit {code}\n")
    path.chmod(0o755)


def test_the_first_engine_that_answers_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    client(tmp_path, "podman", {"host": _HOST | {"serviceIsRemote": True}, "version": {"Version": "5.0.0"}})
    client(tmp_path, "docker", {"ServerVersion": "28.0", "SecurityOptions": ["name=seccomp,profile=default"]})
    found = container_engines.find()
    assert (found.name, found.is_rootless, found.has_limits, found.has_filter) == ("docker 28.0", False, False, True)
    client(tmp_path, "docker", {"ServerErrors": ["cannot connect"]}, code=1)
    with pytest.raises(SandboxUnavailableError, match=r"another machine.*cannot connect"):
        container_engines.find()
    client(tmp_path, "podman", {"host": _HOST, "version": {"Version": "4.2.0"}})
    with pytest.raises(SandboxUnavailableError, match="too old"):
        container_engines.find("podman")
    client(tmp_path, "podman", {"host": _HOST, "version": {"Version": "4.3.1"}})
    found = container_engines.find()
    assert (found.name, found.is_rootless, found.has_limits) == ("podman 4.3.1", True, False)
