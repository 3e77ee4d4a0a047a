"""What this engine takes from the service's settings."""

import os

from services.execution.engines.anthropic.credentials import NETWORK_VARIABLES, ModelCredentials
from services.execution.engines.anthropic.models import Models
from services.execution.settings import ExecutionSettings


def credentials(settings: ExecutionSettings) -> bytes:
    """Return what is needed to reach a model: key, URL and network variables, as bytes; empty without a key.

    Raises:
        StartError: the table of models cannot be read.
    """
    if settings.anthropic_api_key is None:
        return b""
    models = Models.load(settings.models_file)
    return ModelCredentials(
        api_key=settings.anthropic_api_key.get_secret_value(),
        base_url=settings.anthropic_base_url,
        environment={name: os.environ[name] for name in NETWORK_VARIABLES if name in os.environ},
        models_file=models.path,
    ).to_bytes()
