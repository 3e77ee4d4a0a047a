import pytest

from services.common.credentials import ca_complaint, credential_complaint

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("credential", "scheme"),
    [("", "file"), ("ghp_x", "https"), ("ghp_x", "http"), (KEY, "ssh"), (f"{KEY}\n".replace("\n", "\r\n"), "ssh")],
)
def test_what_lets_in(credential: str, scheme: str) -> None:
    assert credential_complaint(credential, scheme) is None


@pytest.mark.parametrize(
    ("credential", "scheme", "complaint"),
    [
        ("x", "file", "https and ssh only"),
        ("ghp_x", "ssh", "private key"),
        (KEY, "https", "printable"),
        ("a\r\nHost: b", "https", "printable"),
        (f"{KEY} and more", "ssh", "private key"),
        (KEY.replace("\n", "\nProc-Type: 4,ENCRYPTED\n", 1), "ssh", "passphrase"),
    ],
)
def test_what_lets_nobody_in(credential: str, scheme: str, complaint: str) -> None:
    assert complaint in (credential_complaint(credential, scheme) or "")


@pytest.mark.parametrize("text", ["\x80", "-", "# none\n", "-----BEGIN CERTIFICATE-----\nü\n-----END CERTIFICATE-----"])
def test_what_are_no_certificates_is_said(text: str) -> None:
    assert ca_complaint(text, "https") == "must be certificates (PEM), from a line `-----BEGIN CERTIFICATE-----` on"
