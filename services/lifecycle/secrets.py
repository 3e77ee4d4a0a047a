"""What a job's agents are told and nobody else reads: how it is kept out of texts, and where it may be sent."""

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from services.agent.providers import EVERYWHERE, ModelProvider
from services.lifecycle.webhooks import AllowList
from services.redaction.strand import Redactor


def job_redactor(secrets: Mapping[str, str]) -> Redactor:
    """Return what keeps a job's own secrets out of texts; what only looks like somebody's token stays."""
    return Redactor({name: value.encode() for name, value in secrets.items()}, finds_tokens=False)


def within(allowed: AllowList, provider: ModelProvider) -> ModelProvider:
    """Say where a provider may be: it is reached from this machine, so what another one allows does not count."""
    host = urlsplit(provider.base_url).hostname or ""
    return replace(provider, allowed_addresses=EVERYWHERE if allowed.names(host) else tuple(map(str, allowed.networks)))
