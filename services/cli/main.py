"""The command's entry point. Each command is imported only when it is used, so that help and usage errors are fast."""

import importlib
import os
import sys
from types import TracebackType

import click

from services.cli import exit_codes, streams
from services.common import display
from services.common.secret_files import with_secret_files

COMMANDS = {
    "up": "Start a cell on this machine and keep it running.",
    "coordinator": "Run a remote gateway's jobs on this machine.",
    "down": "Stop the cell and every agent that runs in it.",
    "doctor": "Check what Boatyard needs on this machine, and say how to fix what is missing.",
    "run": "Run an agent on a repository and follow the job to its end.",
    "logs": "Show what an agent wrote and did.",
    "ps": "List jobs, newest first, or watch them.",
    "kinds": "List the kinds of jobs.",
    "show": "Show a job or an execution in full.",
    "diff": "Show what a job changed, as a unified diff.",
    "artifacts": "List the files that were kept of a job.",
    "artifact": "Read or save a file that was kept of a job.",
    "record": "Read or save what a job's agent asked of models, and what they answered.",
    "cancel": "Cancel a job. What it has done so far is kept.",
    "retry": "Retry a job that failed or was cancelled.",
    "push": "Push a result that a job left and did not push.",
    "tell": "Send a message to a model while it works.",
    "allow": "Allow a tool call of a model that asks for permission.",
    "deny": "Deny a tool call of a model that asks for permission.",
    "attach": "Attach to an agent's terminal.",
    "checkpoints": "List checkpoints, the questions of jobs to people.",
    "approve": "Approve a checkpoint: the job that waits for it continues.",
    "reject": "Reject a checkpoint: the job that waits for it fails.",
    "request-changes": "Ask an agent to change its result.",
    "status": "Show how many jobs and cells there are.",
    "cost": "Show what models were used for, and what that cost.",
    "agents": "List the agents that this machine knows by name.",
    "cells": "List the cells that run jobs, or forget one that is gone.",
    "pause": "Stop a cell from taking new jobs, for example before a restart.",
    "resume": "Let a cell take jobs again.",
    "workspaces": "List workspaces, the working copies of jobs.",
    "snapshots": "List snapshots: what failed and cancelled jobs left.",
    "project": "Manage projects.",
    "secret": "Manage the secrets of a project, which all its agents get.",
    "repository": "Manage repositories: git remotes that jobs work on.",
    "budget": "Manage budgets: what agents may spend on models.",
    "provider": "Manage providers: who answers what agents ask of a model.",
    "template": "Manage templates: kinds of agents.",
    "worker": "Manage workers: named agents.",
    "item": "Manage work items: what is to be done.",
    "hook": "Manage hooks: what is called before and after jobs, and when they fail.",
    "token": "Manage tokens: who may do what.",
    "keys": "Show or replace the keys that encrypt secrets in the database.",
    "login": "Log in at the gateway of somebody else's cell.",
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


def _print_version(ctx: click.Context, _parameter: click.Parameter, is_requested: bool) -> None:
    if is_requested:
        from importlib.metadata import version  # noqa: PLC0415 - takes longer than all else here

        click.echo(f"boatyard {version('boatyard')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Exit codes:
  0    the job succeeded, or the command did what it should
  1    the job failed, or something is wrong on this machine
  2    invalid usage or input
  3    the job was cancelled
  4    the gateway is unreachable, or refuses access
  5    the job waits for a person (with --no-wait)
  130  interrupted by Ctrl-C; a job that was followed continues
  141  whoever read the output, such as head, has closed it; a job that was followed continues

\b
Environment:
  BOATYARD_HOME             the data directory (default ~/.local/share/boatyard)
  BOATYARD_GATEWAY_ADDRESS  the gateway, host:port or unix:PATH (default: the socket of the data directory's cell)
  BOATYARD_TOKEN            the token for the gateway (default: $BOATYARD_HOME/token)
  BOATYARD_TOKEN_FILE       a file with it; so have BOATYARD_DATABASE_URL and ANTHROPIC_API_KEY of a cell
  BOATYARD_PROJECT          the project, where --project is not given
  BOATYARD_GATEWAY_CA       the CA of the gateway's certificate, a PEM file (default: none, and no TLS)
  BOATYARD_INSECURE         1 for what --insecure does
  BOATYARD_GATEWAY_CLIENT_CERTIFICATE, _CLIENT_KEY
                            the certificate and key for a gateway that asks its callers for one
  BOATYARD_TRACEBACK        1 to see where a fault of the command line itself is
  NO_COLOR                  no colour, even on a terminal
""",
)
@click.option(
    "--version", is_flag=True, callback=_print_version, expose_value=False, is_eager=True, help="Show the version."
)
@click.option(
    "--insecure",
    is_flag=True,
    envvar="BOATYARD_INSECURE",
    help="Send the token to host:port without TLS, whoever listens there.",
)
def cli(*, insecure: bool) -> None:
    """Run coding agents against git repositories, on your own machines.

    Start a cell with `boatyard up`. In another terminal, hand an agent some work:

    \b
      boatyard run --repo . --command "my-agent" --verify "make test" "Repair the failing test."
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped


def _show_fault(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of a fault of ours. The error's text may be anybody's."""
    import traceback  # noqa: PLC0415 - for faults alone

    for line in display.message("".join(traceback.format_exception(kind, error, trace))):
        click.echo(line, err=True)


def main() -> None:
    """Run the command line and exit with its code."""
    sys.excepthook = _show_fault
    streams.prepare()
    try:
        code = _run()
        streams.finish()
    except streams.OutputLostError as lost:
        code = exit_codes.report_lost_output(lost)
    sys.exit(code)


def _run() -> int:
    try:
        os.environ.update(with_secret_files(os.environ))
        code = cli.main(prog_name="boatyard", standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - `report` says what each error means to a person
        code = exit_codes.report(error, as_json="--json" in sys.argv[1:])
    except KeyboardInterrupt:
        code = exit_codes.INTERRUPTED
    return code or exit_codes.SUCCEEDED
