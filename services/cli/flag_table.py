"""The flags of jobs and of what jobs are made from. One table: what one command can set, all can.

A row names a field by its path in JobSpec, Template, Worker and WorkItem. The contract has the bounds of its value.
"""

from dataclasses import replace
from typing import Final

from boatyard.gateway.v1 import floor_pb2

from services.cli.budgets import AMOUNTS
from services.cli.flags import Flag, group
from services.cli.parsing import BUDGET, CHECKPOINTS, INPUT_FILE, PAIR, RECORDING, SECRET, SHELL_LINE, TEXT_OR_FILE

PROJECT: Final = Flag(
    "--project",
    "project_id",
    "The project (default: $BOATYARD_PROJECT, or else the token's if it is for one only, or else default).",
    "ID",
    variable="BOATYARD_PROJECT",
    is_fixed=True,
)
TEMPLATE: Final = Flag("--template", "template_id", "The template (default: the worker's).", "ID")

SETTINGS: Final = (
    *group(
        "Agent",
        Flag(
            "--engine",
            "agent.engine",
            "What drives the agent (default: command). In an update it also unsets the options of an engine's own.",
        ),
        Flag(
            "--command",
            "agent.command.line",
            "The agent: a line for /bin/sh, with the prompt on its standard input (default: the gateway's"
            " AGENT_COMMAND).",
            "LINE",
        ),
        Flag(
            "--agent",
            "agent.command.preset",
            "An agent that the machine knows, such as claude or codex, in place of --command: see `boatyard agents`.",
            "NAME",
        ),
        Flag("--prompt-delivery", "agent.command.prompt_delivery", "How the command gets the prompt (default: stdin)."),
        Flag(
            "--terminal",
            "agent.command.terminal",
            "Give the command a terminal, for `boatyard attach`, and the prompt as an argument.",
        ),
        Flag(
            "--model",
            "agent.model",
            "The model, as its provider names it (default for engine anthropic: the gateway's ANTHROPIC_MODEL).",
            "NAME",
        ),
        Flag(
            "--provider",
            "agent.providers",
            "Who answers what the agent asks of a model; may be repeated, the first is tried first (default: all of the"
            " project's, then those of all projects; see `boatyard provider list`).",
            "NAME",
        ),
        Flag(
            "--system-prompt",
            "agent.system_prompt",
            "A text that the agent gets before every prompt.",
            "TEXT|@FILE",
            TEXT_OR_FILE,
        ),
        Flag(
            "--record",
            "agent.record",
            "Record what the agent asks of models, and what they answer: see `boatyard record`.",
        ),
        Flag("--max-turns", "agent.max_turns", "How many answers the model may give (default: 50).", "N"),
        Flag(
            "--max-tokens",
            "agent.anthropic.max_tokens",
            "How many tokens one answer of the model may have (default: 16384).",
            "N",
        ),
        Flag(
            "--token-budget",
            "agent.token_budget",
            "How many tokens all requests to the model may have together, read and written (default: no limit).",
            "N",
        ),
        Flag(
            "--budget",
            "policy.budget",
            "What the job may spend on models in all its attempts: dollars, tokens, requests; unknown-cost also lets"
            " models be asked without a known price (default: no limit; see `boatyard budget list`).",
            AMOUNTS,
            BUDGET,
        ),
        Flag(
            "--ask-before",
            "agent.anthropic.ask_before",
            "A tool that the model needs permission for, such as bash; may be repeated.",
            "TOOL",
        ),
        Flag(
            "--ask-before-kind",
            "agent.command.ask_before",
            "A kind of tools that an agent by the Agent Client Protocol needs permission for: read, edit, delete, move,"
            " search, execute, think, fetch, switch_mode or other; may be repeated.",
            "KIND",
        ),
        Flag(
            "--refuse-kind",
            "agent.command.refuse",
            "A kind of tools that such an agent is refused; may be repeated.",
            "KIND",
        ),
        Flag(
            "--env",
            "agent.environment",
            "A variable of the agent's environment; no place for secrets. May be repeated.",
            "NAME=VALUE",
        ),
        Flag(
            "--secret",
            "agent.secrets",
            "A secret variable of the agent's environment, from a file, standard input (@-) or the variable NAME; it is"
            " shown nowhere. May be repeated.",
            "NAME=@FILE|NAME",
            SECRET,
        ),
    ),
    *group(
        "Sandbox and limits",
        Flag(
            "--sandbox",
            "agent.sandbox_tier",
            "How strongly the agent is isolated; none, where allowed, gives it all your rights (default: bubblewrap).",
        ),
        Flag("--image", "agent.image", "The image of the agent's container, with --sandbox container.", "NAME"),
        Flag(
            "--network",
            "agent.network",
            "What the agent may reach; open, where allowed, is every public address (default: none).",
        ),
        Flag(
            "--allow-host",
            "agent.allowed_hosts",
            "A host that the agent may reach, with --network allow-list, which it implies; may be repeated.",
            "HOST",
            implies=(("agent.network", "allow-list"),),
        ),
        Flag("--timeout", "agent.timeout", "Seconds that the agent may take (default: 3600).", "S"),
        Flag(
            "--idle-timeout",
            "agent.idle_timeout",
            "Seconds that the agent may go without writing anything (default: no limit).",
            "S",
        ),
        Flag(
            "--memory", "agent.memory_bytes", "Memory that the agent's processes may use together, such as 2G.", "SIZE"
        ),
        Flag("--processes", "agent.processes", "Processes and threads that the agent may have at once.", "N"),
        Flag("--disk", "agent.disk_bytes", "How much the agent's workspace and HOME may grow, such as 5G.", "SIZE"),
        Flag(
            "--scratch",
            "agent.scratch_bytes",
            "How much may lie in each of the sandbox's /tmp and /dev/shm, such as 4G (default: the machine's).",
            "SIZE",
        ),
        Flag("--output", "agent.output_bytes", "How much the agent may write to its output, such as 100M.", "SIZE"),
        Flag("--cpu", "agent.cpu_seconds", "Seconds of CPU time that the agent's processes may use together.", "S"),
        Flag("--open-files", "agent.open_files", "Files that each of the agent's processes may have open.", "N"),
        Flag(
            "--file-size",
            "agent.file_size_bytes",
            "Size of the largest file that the agent may write, such as 1G.",
            "SIZE",
        ),
    ),
    *group(
        "Result",
        Flag(
            "--verify",
            "policy.verify_command",
            "A line for /bin/sh that checks the result; nothing is pushed unless it exits with 0.",
            "LINE",
            SHELL_LINE,
        ),
        Flag("--verify-timeout", "policy.verify_timeout", "Seconds that the check may take (default: 600).", "S"),
        Flag("--publish", "policy.publish", "What happens to the result (default: push)."),
        Flag(
            "--incomplete",
            "policy.incomplete",
            "What happens to a result without all that the agent left, because it cannot be read, say (default: fail);"
            " strict also wants all submodules and files of Git LFS before the agent starts.",
        ),
        Flag("--no-push", "policy.publish", "The same as --publish none: keep it on this machine.", stands_for="none"),
        Flag(
            "--artifact",
            "policy.artifacts",
            "Files of the workspace to keep beside the result, such as dist or **/*.log, ignored ones too; may be"
            " repeated. See `boatyard artifacts`.",
            "GLOB",
        ),
        Flag(
            "--leave-out",
            "policy.leave_out",
            "Files that the agent drops and nobody wants in the result, as in a .gitignore file, such as '.aider*'; may"
            " be repeated.",
            "PATTERN",
        ),
        Flag(
            "--git-lfs",
            "policy.git_lfs",
            "Fetch files of Git LFS, and upload what the agent makes of them (default: yes).",
        ),
        Flag(
            "--retention",
            "policy.retention",
            "What happens to the workspace when the job has ended (default: keep-failed).",
        ),
    ),
    *group(
        "Questions to people",
        Flag(
            "--approve-before",
            "policy.checkpoints",
            "The stages before which a person is asked, out of base, start, verify, push and end; or none.",
            "STAGE,…",
            CHECKPOINTS,
        ),
        Flag(
            "--answer-within",
            "policy.checkpoint_timeout",
            "Seconds after which no answer means no (default: a day).",
            "S",
        ),
        Flag("--max-extra-rounds", "policy.max_extra_rounds", "How often changes may be requested (default: 5).", "N"),
        Flag(
            "--agent-may-ask",
            "policy.agent_may_ask",
            "Let the agent ask a person, through the file $BOATYARD_ASK_FILE.",
        ),
    ),
    *group(
        "Attempts",
        Flag("--max-attempts", "policy.max_attempts", "How often the job is tried at most (default: 3).", "N"),
        Flag(
            "--retry-on",
            "policy.retry_on",
            "A failure reason after which the job is tried again, such as AGENT_FAILED; may be repeated.",
            "REASON",
        ),
        Flag("--retry-from", "policy.retry_from", "What the next attempt starts from (default: base)."),
    ),
)
"""AgentSettings and Policy, in `boatyard run` and in the catalogue."""

_LIMITS: Final = frozenset(floor_pb2.Limits.DESCRIPTOR.fields_by_name)

FLOOR: Final = group(
    "Floor: what jobs cannot take away",
    Flag(
        "--floor-verify",
        "floor.verify_command",
        "A line for /bin/sh that checks each result, before a job's own.",
        "LINE",
        SHELL_LINE,
    ),
    Flag(
        "--floor-approve-before",
        "floor.checkpoints",
        "The stages before which a person is always asked, as for --approve-before.",
        "STAGE,…",
        CHECKPOINTS,
    ),
    Flag("--floor-sandbox", "floor.sandbox_tiers", "A sandbox that jobs may choose; may be repeated (default: all)."),
    Flag("--floor-network", "floor.networks", "A network that jobs may choose; may be repeated (default: all)."),
    Flag(
        "--floor-host",
        "floor.allowed_hosts",
        "A host that jobs may put into their allow list, *.example.com for all below one; may be repeated"
        " (default: all).",
        "HOST",
    ),
    Flag("--floor-max-attempts", "floor.max_attempts", "The most that jobs may set with --max-attempts.", "N"),
    Flag(
        "--floor-max-extra-rounds",
        "floor.max_extra_rounds",
        "The most that jobs may set with --max-extra-rounds.",
        "N",
    ),
    Flag("--floor-budget", "floor.budget", "The most that jobs may set with --budget.", AMOUNTS, BUDGET),
    Flag("--floor-never-pushed", "floor.never_pushed", "Push no result."),
    Flag(
        "--protect",
        "floor.protected_paths",
        "A path such as .github/workflows: results that change it are pushed after an approval; may be repeated.",
        "PATH",
    ),
    Flag(
        "--approved-by-others",
        "floor.approved_by_others",
        "Let nobody approve what they have submitted or retried themselves.",
    ),
    *(
        replace(
            flag,
            option=f"--floor-{flag.option.removeprefix('--')}",
            path=flag.path.replace("agent.", "floor.limits."),
            help=f"The most that jobs may set with {flag.option}.",
        )
        for flag in SETTINGS
        if flag.path.removeprefix("agent.") in _LIMITS
    ),
)
"""Floor, for projects and templates."""

RUN: Final = (
    *group(
        "Job",
        replace(
            PROJECT,
            help="The project (default: $BOATYARD_PROJECT, or else that of the worker, item, template or repository, or"
            " else the token's if it is for one only, or else default).",
        ),
        Flag(
            "--worker",
            "worker_id",
            "The worker that does the job; other options override its settings and its template's.",
            "ID",
        ),
        Flag("--item", "work_item_id", "The work item that the job is for; its texts go with PROMPT.", "ID"),
        TEMPLATE,
        Flag(
            "--repository",
            "repository_id",
            "The repository, as --repo, by its id (see `boatyard repository list`).",
            "ID",
        ),
        Flag("--kind", "kind", "The kind of the job; see `boatyard kinds` (default: task).", "NAME"),
        Flag("--priority", "priority", "Jobs with a higher number are taken first (default: 0).", "N"),
        Flag("--ref", "revision", "The branch, tag or commit to start from (default: the remote's branch).", "REF"),
        Flag(
            "--from-snapshot",
            "snapshot_id",
            "Start from what another job left (see `boatyard snapshots`), in its repository.",
            "ID",
        ),
        Flag(
            "--branch",
            "branch",
            "The branch of the result (default: boatyard/<job id>, or ticket-<item> for an item).",
            "NAME",
        ),
        Flag(
            "--file",
            "files",
            "A file to work on; the agent finds it at .boatyard/input/NAME. May be repeated.",
            "NAME=PATH",
            INPUT_FILE,
        ),
        Flag(
            "--data",
            "data",
            "A JSON object to work on; the agent finds it in the file named by $BOATYARD_INPUT.",
            "JSON|@FILE",
            TEXT_OR_FILE,
        ),
        Flag(
            "--replay",
            "replay.recording",
            "A recording (see --record) that answers what the agent asks of models: no network, no key, no cost.",
            "FILE",
            RECORDING,
        ),
        Flag(
            "--replay-by",
            "replay.matching",
            "How the answer to a request is found: by what is asked, or by the order alone (default: strict).",
        ),
        Flag("--label", "labels", "A label of the job; may be repeated.", "KEY=VALUE", PAIR),
        Flag("--delay", "delay", "Start in S seconds at the earliest.", "S"),
        Flag(
            "--not-before",
            "not_before_time",
            "Start at this time at the earliest, such as 2030-01-31T08:00+01:00.",
            "TIME",
        ),
        Flag(
            "--waive-floors",
            "waive_floors",
            "Submit it without the floors of its project and template; for administrators, and recorded.",
        ),
    ),
    *SETTINGS,
)
"""A whole JobSpec, but for the prompt, for `boatyard run`."""
