"""Where the gateway listens, and with which certificates."""

import pytest

from services.common.errors import StartError
from services.common.settings import load_settings
from services.coordinator.settings import CoordinatorSettings
from services.gateway.settings import GatewaySettings

TLS = {"TLS_CERTIFICATE": "/server.pem", "TLS_KEY": "/server.key", "CA": "/ca.pem"}


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"LISTEN": "0.0.0.0:7460"}, "BOATYARD_GATEWAY_LISTEN: must be a loopback address unless"),
        ({"LISTEN": "[::]:7460", "CA": "/ca.pem"}, "tokens would travel in the clear"),
        ({"TLS_CERTIFICATE": "/server.pem", "CA": "/ca.pem"}, "BOATYARD_GATEWAY_TLS_KEY go together"),
        ({**TLS, "CA": ""}, "BOATYARD_GATEWAY_CA: is required with TLS"),
        ({"LISTEN": "nowhere", **TLS}, "BOATYARD_GATEWAY_LISTEN: must be host:port"),
    ],
)
def test_tokens_do_not_travel_in_the_clear(
    variables: dict[str, str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"BOATYARD_GATEWAY_{name}", value)
    with pytest.raises(StartError, match="wrong settings") as refused:
        load_settings(GatewaySettings)
    assert complaint in str(refused.value)


def test_it_listens_anywhere_with_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LISTEN": "0.0.0.0:7460", **TLS}.items():
        monkeypatch.setenv(f"BOATYARD_GATEWAY_{name}", value)
    settings = load_settings(GatewaySettings)
    assert settings.server_tls is not None
    assert settings.client_tls is not None


def test_a_coordinator_shows_its_token_to_nobody_who_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOATYARD_COORDINATOR_UPSTREAM", "unix:/srv/run/gateway.sock,127.0.0.1:1,10.0.0.1:7460")
    with pytest.raises(StartError, match=r"BOATYARD_COORDINATOR_UPSTREAM_CA: is required, because .* 127\.0\.0\.1:1"):
        load_settings(CoordinatorSettings)
    monkeypatch.setenv("BOATYARD_COORDINATOR_UPSTREAM_INSECURE", "1")
    assert load_settings(CoordinatorSettings).upstream_tls is None
    monkeypatch.delenv("BOATYARD_COORDINATOR_UPSTREAM_INSECURE")
    monkeypatch.setenv("BOATYARD_COORDINATOR_UPSTREAM", "unix:/srv/run/gateway.sock")
    assert load_settings(CoordinatorSettings).upstream_tls is None
