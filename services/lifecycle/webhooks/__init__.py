"""Calls servers about jobs, by signed POSTs (Standard Webhooks 1.0) or by gRPC.

Guarantees that only addresses are called that the operator allows, whatever a name resolves to and wherever a server
redirects; that every call ends, however slow or talkative the server is; and that all tries of a call have one id.
"""

from services.lifecycle.webhooks.addresses import PUBLIC, AllowList, url_complaint
from services.lifecycle.webhooks.callback import Callback, CallbackAnswer, answer_complaint
from services.lifecycle.webhooks.http import WebhookRequest, WebhookResponse, Webhooks
from services.lifecycle.webhooks.retries import TRIES, CallFailed
from services.lifecycle.webhooks.signing import new_secret, secret_complaint, signing_key

__all__ = [
    "PUBLIC",
    "TRIES",
    "AllowList",
    "CallFailed",
    "Callback",
    "CallbackAnswer",
    "WebhookRequest",
    "WebhookResponse",
    "Webhooks",
    "answer_complaint",
    "new_secret",
    "secret_complaint",
    "signing_key",
    "url_complaint",
]
