"""Signatures of Standard Webhooks 1.0: https://github.com/standard-webhooks/standard-webhooks."""

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Final

_PREFIX: Final = "whsec_"
_NEW_BYTES: Final = 32
_LEAST_BYTES, _MOST_BYTES = 24, 64  # the specification's


def new_secret() -> str:
    """Make a secret."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_NEW_BYTES)).decode()


def secret_complaint(secret: str) -> str | None:
    """Return why this is not a secret, without repeating it; None when it is one."""
    try:
        fits = secret.startswith(_PREFIX) and _LEAST_BYTES <= len(signing_key(secret)) <= _MOST_BYTES
    except (binascii.Error, ValueError):
        fits = False
    return None if fits else f"must be {_PREFIX} and the base64 of {_LEAST_BYTES} to {_MOST_BYTES} bytes"


def signing_key(secret: str) -> bytes:
    """Return the key that a secret stands for."""
    return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)


def signed_headers(key: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers that authenticate a call; `timestamp` is in seconds since 1970."""
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }
