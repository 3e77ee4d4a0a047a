"""deploy/ agrees with the code: its variables exist, its ports are served, and its files are where they are mounted.

Nothing of it is run: that takes a container engine (deploy/try.sh), or a cluster.
"""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import AliasChoices

from services.common.rpc.tls import ClientTls, ServerTls
from services.common.secret_files import SECRETS
from services.common.settings import ServiceSettings
from services.execution.settings import ExecutionSettings
from services.gateway.settings import GatewaySettings
from services.git.settings import GitSettings
from services.sandbox.seccomp import REFUSED
from services.workspace.settings import WorkspaceSettings
from tests.kit.contract import ROOT

DEPLOY = ROOT / "deploy"
SETTINGS: tuple[type[ServiceSettings], ...] = (GatewaySettings, WorkspaceSettings, GitSettings, ExecutionSettings)
AUXILIARY = {"POD_NAME", "POD_NAMESPACE"}
"""Variables that other values are composed of."""


def variables() -> set[str]:
    """Return every variable that a service reads."""
    names_read = set()
    for kind in SETTINGS:
        for name, field in kind.model_fields.items():
            alias = field.validation_alias
            names = (
                alias.choices if isinstance(alias, AliasChoices) else [alias or kind.model_config["env_prefix"] + name]
            )
            names_read |= {str(name).upper() for name in names}
    return names_read | {f"{name}_FILE" for name in SECRETS}


def documents(path: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / path).read_text()))


def manifests() -> dict[tuple[str, str], Any]:
    """Return the manifests that `kubectl apply -k` would apply, by kind and name."""
    (kustomization,) = documents("kubernetes/kustomization.yaml")
    manifests = [one for file in kustomization["resources"] for one in documents(f"kubernetes/{file}")]
    return {(one["kind"], one["metadata"]["name"]): one for one in manifests}


def cells() -> dict[str, dict[str, str]]:
    """Return the variables of each cell that compose or Kubernetes describes."""
    (compose,) = documents("compose/compose.yaml")
    pod = manifests()["StatefulSet", "cell"]["spec"]["template"]["spec"]
    kubernetes = {one["name"]: one.get("value", "") for one in pod["containers"][0]["env"]}
    described = {name: one["environment"] for name, one in compose["services"].items() if name.startswith("cell-")}
    return {
        where: dict(map(_default, values.items())) for where, values in {**described, "kubernetes": kubernetes}.items()
    }


def _default(variable: tuple[str, str]) -> tuple[str, str]:
    """Replace variables by their defaults, as compose does without an .env."""
    name, value = variable
    return name, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


@pytest.mark.parametrize("where", cells())
def test_every_variable_is_one_that_a_service_reads(where: str) -> None:
    assert set(cells()[where]) - AUXILIARY - variables() == set()


@pytest.mark.parametrize("where", cells())
def test_the_gateway_takes_what_it_is_told(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BOATYARD_")]:
        monkeypatch.delenv(name)
    for name, value in cells()[where].items():
        monkeypatch.setenv(name, value)
    settings = GatewaySettings()  # type: ignore[call-arg]
    assert (settings.listen, settings.http_listen) == ("0.0.0.0:7460", "0.0.0.0:7480")
    assert settings.server_tls is not None
    assert settings.client_tls is not None


def test_the_ports_are_those_that_are_served() -> None:
    ports = {"grpc": 7460, "metrics": 7480}
    kinds = manifests()
    container = kinds["StatefulSet", "cell"]["spec"]["template"]["spec"]["containers"][0]
    assert {one["name"]: one["containerPort"] for one in container["ports"]} == ports
    for service in ("boatyard", "cells"):
        for one in kinds["Service", service]["spec"]["ports"]:
            assert one["port"] == ports[one["targetPort"]]
    (compose,) = documents("compose/compose.yaml")
    assert {one.rpartition(":")[2] for name in ("cell-1", "cell-2") for one in compose["services"][name]["ports"]} == {
        str(port) for port in ports.values()
    }
    assert f"EXPOSE {' '.join(map(str, ports.values()))}\n" in (DEPLOY / "image/Dockerfile").read_text()


def test_the_manifests_name_one_another_rightly() -> None:
    kinds = manifests()
    cell = kinds["StatefulSet", "cell"]["spec"]
    labels = cell["template"]["metadata"]["labels"]
    assert cell["serviceName"] == "cells"
    selectors = [
        cell["selector"]["matchLabels"],
        kinds["Service", "boatyard"]["spec"]["selector"],
        kinds["Service", "cells"]["spec"]["selector"],
        kinds["PodDisruptionBudget", "cells"]["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    pod = cell["template"]["spec"]
    volumes = {one["name"] for one in pod["volumes"]} | {
        one["metadata"]["name"] for one in cell["volumeClaimTemplates"]
    }
    mounted = {
        one["name"] for container in pod["containers"] + pod["initContainers"] for one in container["volumeMounts"]
    }
    assert mounted == volumes
    (example,) = documents("kubernetes/secret.example.yaml")
    values = {one["name"]: one.get("value", "") for one in pod["containers"][0]["env"]}
    files = {values[name].removeprefix("/secrets/") for name in values if name.removesuffix("_FILE") in SECRETS}
    assert files == set(example["stringData"])


def test_a_pod_may_make_sandboxes_and_nothing_else() -> None:
    pod = manifests()["StatefulSet", "cell"]["spec"]["template"]["spec"]
    assert pod["hostUsers"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    for container in pod["containers"] + pod["initContainers"]:
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context["allowPrivilegeEscalation"]
        assert context["readOnlyRootFilesystem"]
        assert context["procMount"] == "Unmasked"
        assert "livenessProbe" not in container, "it would end agents"


@pytest.mark.parametrize("where", ["README.md", "try.sh"])
def test_a_cell_may_do_the_same_however_it_is_started(where: str) -> None:
    (compose,) = documents("compose/compose.yaml")
    text = (DEPLOY / where).read_text()
    options = {option.removesuffix(":true") for option in compose["services"]["cell-1"]["security_opt"]}
    text = re.sub(r'"?seccomp=\S+/seccomp.json"?', "seccomp=../seccomp.json", text.replace('$(dirname "$0")', "."))
    assert set(re.findall(r"--security-opt ([\w=./-]+)", text)) == options
    assert "--read-only --tmpfs /tmp:mode=1777" in text
    assert "--cap-drop ALL" in text
    assert "--restart unless-stopped --stop-timeout 60" in text
    assert compose["services"]["cell-1"]["stop_grace_period"] == "60s"


def test_cells_of_compose_get_no_more_than_they_need() -> None:
    (compose,) = documents("compose/compose.yaml")
    for name in ("cell-1", "cell-2"):
        cell = compose["services"][name]
        assert cell["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in cell["security_opt"]
        assert cell["read_only"]
        assert set(SECRETS) & set(cell["environment"]) == set(), "secrets are files"
        (mounted,) = [volume for volume in cell["volumes"] if "certificates" in volume]
        assert mounted.startswith("./certificates/cells:"), "with the key of the CA a cell is any cell"


MADE_BY_SANDBOXES = {
    *("mount", "umount2", "pivot_root", "chroot", "setns", "clone3", "pidfd_getfd"),
    *("open_tree", "open_tree_attr", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr"),
}
"""What agents may not do, and whoever makes their sandboxes may."""


def test_a_containers_filter_refuses_what_a_sandboxs_does() -> None:
    profile = json.loads((DEPLOY / "seccomp.json").read_text())
    refused = {name: rule["errnoRet"] for rule in profile["syscalls"] for name in rule["names"]}
    assert refused == {name: group.error for group in REFUSED for name in group.calls if name not in MADE_BY_SANDBOXES}


def test_the_image_is_built_of_what_is_there() -> None:
    lines = (DEPLOY / "image/Dockerfile").read_text().splitlines()
    (entry,) = [line for line in lines if line.startswith("ENTRYPOINT")]
    assert "tini" in entry, "somebody must reap what agents leave behind"
    assert any("--require-hashes" in line and "requirements/runtime.txt" in line for line in lines)
    assert [line for line in lines if line.startswith("FROM")] == ["FROM ${BASE} AS build", "FROM ${BASE}"]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "deploy" in ignored, "that is where compose's secrets lie"
    assert not {"services", "protos", "pyproject.toml", "requirements", "README.md"} & set(ignored)


def test_the_certificates_are_good_for_servers_and_clients(tmp_path: Path) -> None:
    command = [DEPLOY / "certificates.sh", tmp_path / "made", "cell-1", "*.cells.boatyard.svc"]
    for _ in range(2):  # the second run renews the certificates
        subprocess.run(command, check=True, capture_output=True)
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"ca.key", "ca.srl", "cells"}
    cells_directory = tmp_path / "made" / "cells"
    assert cells_directory.stat().st_mode & 0o777 == 0o755, "cells are another user"
    assert {path.name: path.stat().st_mode & 0o777 for path in cells_directory.iterdir()} == {
        "ca.crt": 0o644,
        "gateway.crt": 0o644,
        "gateway.key": 0o600,
    }
    ServerTls(cells_directory / "gateway.crt", cells_directory / "gateway.key").credentials()
    ClientTls(cells_directory / "ca.crt").credentials()
    verify = ["openssl", "verify", "-CAfile", cells_directory / "ca.crt"]
    for name in ("cell-1", "localhost", "cell-2.cells.boatyard.svc"):
        subprocess.run(
            [*verify, "-verify_hostname", name, cells_directory / "gateway.crt"], check=True, capture_output=True
        )
