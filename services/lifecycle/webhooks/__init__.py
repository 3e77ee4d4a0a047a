"""Telling servers of jobs, by signed POSTs (Standard Webhooks 1.0).

Promises that no address is called but those that the operator allows, whatever a name resolves to and wherever a server
points; that a call ends, however slow or talkative the server; and that all tries of a call have the same id.
"""

from services.lifecycle.webhooks.addresses import AllowList, url_complaint
from services.lifecycle.webhooks.delivery import Answer, Call, CallFailed, Webhooks
from services.lifecycle.webhooks.signing import new_secret, secret_complaint, signing_key

__all__ = [
    "AllowList",
    "Answer",
    "Call",
    "CallFailed",
    "Webhooks",
    "new_secret",
    "secret_complaint",
    "signing_key",
    "url_complaint",
]
