"""A user without a cell logs in at somebody else's gateway, which is then known by its certificate alone."""

import os
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from boatyard.gateway.v1 import job_pb2

from services.common.home import Home
from services.common.rpc.own_certificate import OwnCertificate, own_certificate
from tests.kit.cell import BOATYARD

TOKEN = "boatyard_of-a-guest"


class Gateway(grpc.GenericRpcHandler):
    """Answers every call with no jobs, and keeps the metadata that it was sent."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        self.heard += [str(value) for key, value in details.invocation_metadata if key == "authorization"]
        answer = job_pb2.ListJobsResponse().SerializeToString()
        return grpc.unary_unary_rpc_method_handler(lambda *_: answer)


@contextmanager
def listening(own: OwnCertificate, port: int = 0) -> Iterator[tuple[Gateway, str]]:
    gateway, server = Gateway(), grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([gateway])
    pair = (own.key.read_bytes(), own.certificate.read_bytes())
    port = server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        yield gateway, f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def boatyard(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"PATH": os.environ["PATH"], "HOME": str(home)}
    return subprocess.run(
        [BOATYARD, *arguments], env=settings | environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_token_goes_to_the_pinned_certificate_alone(tmp_path: Path) -> None:
    own = own_certificate(Home(tmp_path / "cell"))
    with listening(own) as (gateway, address):
        wrong = boatyard(tmp_path, "login", address, "--fingerprint", "AB:CD", BOATYARD_TOKEN=TOKEN)
        assert (wrong.returncode, gateway.heard) == (4, [])
        assert f"has another fingerprint, {own.fingerprint}" in wrong.stderr

        known = boatyard(tmp_path, "login", address, "--fingerprint", own.fingerprint, BOATYARD_TOKEN=TOKEN)
        assert known.returncode == 0, known.stderr
        listed = boatyard(tmp_path, "ps")
        assert (listed.returncode, gateway.heard) == (0, [f"Bearer {TOKEN}"] * 2), listed.stderr

    impostors = own_certificate(Home(tmp_path / "impostor"))
    with listening(impostors, int(address.rpartition(":")[2])) as (impostor, _):
        refused = boatyard(tmp_path, "ps")
        assert (refused.returncode, impostor.heard) == (4, [])
        assert f"no gateway with the pinned certificate answers at {address}" in refused.stderr

    assert boatyard(tmp_path, "login", address, "--forget").returncode == 0
    assert "boatyard login" in boatyard(tmp_path, "ps").stderr


def test_a_cells_own_certificate_is_made_once_and_only_its_owner_has_the_key(tmp_path: Path) -> None:
    home = Home(tmp_path / "cell")
    first = own_certificate(home).fingerprint
    again = own_certificate(home)

    assert again.fingerprint == first
    assert again.key.stat().st_mode & 0o777 == 0o600
    assert ssl.PEM_cert_to_DER_cert(again.certificate.read_text())
    again.key.unlink()
    assert own_certificate(home).fingerprint != first


@pytest.mark.parametrize(("arguments", "said"), [(("x",), "must be host:port"), (("127.0.0.1:1",), "cannot reach")])
def test_where_nobody_can_be_nobody_is_asked_for_a_token(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    result = boatyard(tmp_path, "login", *arguments)

    assert result.returncode in (2, 4)
    assert said in result.stderr
