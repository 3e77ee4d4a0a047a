"""Telling servers of jobs, by signed POSTs (Standard Webhooks 1.0) or by gRPC.

Promises that no address is called but those that the operator allows, whatever a name resolves to and wherever a server
points; that a call ends, however slow or talkative the server; and that all tries of a call have the same id.
"""

from services.lifecycle.webhooks.addresses import AllowList, callback_complaint, url_complaint
from services.lifecycle.webhooks.callback import Callback, CallbackAnswer
from services.lifecycle.webhooks.http import WebhookRequest, WebhookResponse, Webhooks
from services.lifecycle.webhooks.retries import TRIES, CallFailed
from services.lifecycle.webhooks.signing import new_secret, secret_complaint, signing_key

__all__ = [
    "TRIES",
    "AllowList",
    "CallFailed",
    "Callback",
    "CallbackAnswer",
    "WebhookRequest",
    "WebhookResponse",
    "Webhooks",
    "callback_complaint",
    "new_secret",
    "secret_complaint",
    "signing_key",
    "url_complaint",
]
