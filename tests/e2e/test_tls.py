"""A whole cell that speaks TLS, and asks everybody for a certificate: its own supervisor and command line too."""

import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.kit.cell import BOATYARD, running_cell
from tests.kit.certificates import Authority


@pytest.mark.slow
def test_a_cell_with_certificates_lets_in_who_has_both_one_and_a_token() -> None:
    with tempfile.TemporaryDirectory(prefix="boatyard-tls-") as directory:
        authority = Authority(Path(directory) / "ca")
        server = authority.issue("127.0.0.1", into="server")
        client = authority.issue("people", into="client")
        told = {"BOATYARD_GATEWAY_CA": authority.file}
        shown = {"BOATYARD_GATEWAY_CLIENT_CERTIFICATE": client.certificate, "BOATYARD_GATEWAY_CLIENT_KEY": client.key}
        serving = {
            "BOATYARD_GATEWAY_TLS_CERTIFICATE": server.certificate,
            "BOATYARD_GATEWAY_TLS_KEY": server.key,
            "BOATYARD_GATEWAY_TLS_CLIENT_CA": authority.file,
        }
        environment = {name: str(path) for name, path in (told | shown | serving).items()}
        with running_cell(Path(directory), **environment) as cell:

            def ps(**files: object) -> int:
                by_its_port = {"BOATYARD_GATEWAY_ADDRESS": cell.address("gateway")}
                variables = cell.environment | by_its_port | {name: str(path) for name, path in files.items()}
                return subprocess.run(
                    [BOATYARD, "ps"], env=variables, capture_output=True, timeout=60, check=False
                ).returncode

            assert ps(**told, **shown) == 0
            assert ps(**told) == 4, "without a certificate"
            assert ps() == 4, "in the clear"
            assert ps(**told, **shown, BOATYARD_TOKEN="another") == 4, "a certificate is no token"
            assert ps(BOATYARD_GATEWAY_ADDRESS="") == 0, "its owner, by its socket"
