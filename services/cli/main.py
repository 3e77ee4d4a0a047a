"""The command's entry point. Commands are imported when they are used, so that help and usage errors are fast."""

import importlib
import sys

import click

from services.cli import exit_codes

COMMANDS = {
    "up": "Start a cell on this machine and keep it running.",
    "coordinator": "Carry jobs of a gateway elsewhere on this machine.",
    "down": "End the cell, and every agent that runs in it.",
    "doctor": "Check what Boatyard needs here, and say how to mend what is missing.",
    "run": "Run an agent on a repository and follow it to its end.",
    "logs": "Show what an agent wrote and did.",
    "ps": "List jobs, the newest first, or watch them.",
    "kinds": "List the kinds of jobs.",
    "show": "Show one job or execution in full.",
    "diff": "Show what a job changed, as a unified diff.",
    "cancel": "End a job. What it has done so far is kept.",
    "retry": "Try a job again that failed or was cancelled.",
    "tell": "Tell a model something while it works.",
    "allow": "Allow what a model asks.",
    "deny": "Deny what a model asks.",
    "attach": "Type on an agent's terminal.",
    "checkpoints": "List what waits for a person.",
    "approve": "Approve what a job waits for.",
    "reject": "Reject what a job waits for.",
    "request-changes": "Have an agent change its result.",
    "status": "Show how much there is to do, and by whom.",
    "cells": "List the machines that take jobs, or forget one that is gone.",
    "pause": "Have a cell take no more jobs, before it is restarted, say.",
    "resume": "Have a cell take jobs again.",
    "workspaces": "List the working copies.",
    "snapshots": "List what jobs left that did not succeed.",
    "project": "Manage projects.",
    "repository": "Manage the git remotes that jobs work on.",
    "template": "Manage templates: kinds of agents.",
    "worker": "Manage workers: named agents.",
    "item": "Manage work items: what is to be done.",
    "hook": "Manage what is called before and after jobs, and on their failure.",
    "token": "Manage tokens: who is let in, and to what.",
    "audit": "Show who did what.",
}


class LazyGroup(click.Group):
    """A group whose commands are modules of `services.cli.commands`, each with a `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order in which people use them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"services.cli.commands.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)  # noqa: S101 - for the type checker
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - takes longer than all else here

        click.echo(f"boatyard {version('boatyard')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Exit codes:
  0    the job succeeded, or the command did what it should
  1    the job failed, or something is wrong here
  2    wrong usage or input
  3    the job was cancelled
  4    the gateway is not reachable, or does not let us in
  5    the job waits for a person (with --no-wait)
  130  Ctrl-C; a job that was followed goes on

\b
Environment:
  BOATYARD_HOME             the data directory (default ~/.local/share/boatyard)
  BOATYARD_GATEWAY_ADDRESS  the gateway, host:port (default: the cell of the data directory)
  BOATYARD_TOKEN            the token shown to it (default: $BOATYARD_HOME/token)
  BOATYARD_GATEWAY_CA       the CA by which it is known, a file in PEM (default: none, and no TLS)
  BOATYARD_GATEWAY_CLIENT_CERTIFICATE, _CLIENT_KEY
                            what is shown to one that asks callers for a certificate
  NO_COLOR                  no colour, also on a terminal
""",
)
@click.option(
    "--version", is_flag=True, callback=_print_version, expose_value=False, is_eager=True, help="Show the version."
)
def cli() -> None:
    """Run coding agents against git repositories, on your own machines.

    Start a cell with `boatyard up`. In another terminal, hand an agent some work:

    \b
      boatyard run --repo . --command "my-agent" --verify "make test" "Repair the failing test."
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        code = cli.main(prog_name="boatyard", standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - the border: `exits` knows what each error means to a person
        code = exit_codes.report(error, as_json="--json" in sys.argv[1:])
    except KeyboardInterrupt:
        code = exit_codes.INTERRUPTED
    sys.exit(code or exit_codes.SUCCEEDED)
