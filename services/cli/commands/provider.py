"""`boatyard provider`."""

import click
from boatyard.gateway.v1 import catalog_pb2

from services.cli import options
from services.cli.catalogue import ResourceType, resource_commands
from services.cli.clients import with_gateway
from services.cli.exit_codes import FAILED, SUCCEEDED
from services.cli.flags import Flag
from services.cli.parsing import SECRET_FILE, TEXT_OR_FILE
from services.cli.screen import Screen

KIND = ResourceType(
    "Provider",
    "Providers",
    "provider",
    "provider",
    [
        Flag("--wire", "wire", "How it is spoken to: by which company's API."),
        Flag(
            "--base-url",
            "base_url",
            "Where it is: what precedes /v1/messages, /responses, /chat/completions or /v1beta/models.",
            "URL",
        ),
        Flag(
            "--key",
            "keys",
            "A file with its key, which is stored encrypted and never shown. May be repeated; in an update these keys"
            " replace all that it had.",
            "@FILE",
            SECRET_FILE,
        ),
        Flag(
            "--project", "project_id", "The project whose agents have it (default: every project).", "ID", is_fixed=True
        ),
        Flag("--alias", "aliases", "What agents may call one of its models. May be repeated.", "NAME=MODEL"),
        Flag("--model", "models", "A model that it has (default: any). May be repeated.", "NAME"),
        Flag("--order", "order", "Those with a lower number are tried first (default: 0).", "N"),
        Flag("--disabled", "disabled", "Give it to no agent."),
        Flag("--for-coordinators", "for_coordinators", "Give it, with its keys, to coordinators for their jobs."),
        Flag("--project-header", "project_header", "The project, at the provider, that pays for the requests.", "ID"),
        Flag("--ca", "ca", "Certificates (PEM) of a CA that vouches for its server.", "@FILE", TEXT_OR_FILE),
    ],
    ["provider_id", "project_id", "wire", "base_url", "key_count", "disabled", "is_implied"],
    order="in the order in which they are tried",
    on_change="Agents that start from then on have it as it is now.",
    on_delete=" with its keys",
)

command = resource_commands(
    KIND,
    "Manage providers, who answer what agents ask of a model.\n\nAgents never get their keys: they ask the machine that"
    " runs them, which adds a key outside of the sandbox.",
)


@command.command("test", short_help="Try out a provider.")
@click.argument("id_", metavar="ID", type=options.TEXT)
@options.as_json
def test(id_: str, as_json: bool) -> int:
    """Ask a provider for its models, with each of its keys, and say what came back. This costs nothing."""
    request = catalog_pb2.TestProviderRequest(provider_id=id_)
    answer = with_gateway(lambda gateway: gateway.ask(gateway.catalog.TestProvider(request)))
    shape = {"kind": "provider_test", "succeeded": answer.succeeded, "message": answer.message}
    Screen().answer(shape, answer.message, as_json=as_json)
    return SUCCEEDED if answer.succeeded else FAILED
