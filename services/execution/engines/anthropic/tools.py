"""What the model is told about its tools and its surroundings. The tools are in `services.execution.toolbox`."""

from typing import Any

SYSTEM = """\
You are an agent that works by itself in a working copy, which is the current directory of your tools. Nobody reads \
along to answer questions: decide for yourself, and say in the end what you decided. What you leave in the working \
copy is your result; it is taken from there as it is, so you need not commit it.

Your tools run in a sandbox: the system is read-only, /tmp and the home directory are yours and no part of the result, \
and there may be no network. The shell stays the same from call to call.

When you are done, stop calling tools and end with a short summary of what you did and what you could not do."""

_TEXT = {"type": "string"}
_PATH = {"type": "string", "description": "A path, absolute or relative to the working copy."}


def _tool(name: str, description: str, required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"name": name, "description": description, "input_schema": schema}


def _number(description: str) -> dict[str, Any]:
    return {"type": "integer", "description": description}


TOOLS = [
    _tool(
        "bash",
        "Run a command in a shell that stays: directory, variables and functions are there in the next call. Returns "
        "standard output and standard error together, and the exit code unless it is 0. Standard input is empty. "
        "A command that takes longer than its timeout is ended, and the shell with it.",
        ["command"],
        command=_TEXT,
        timeout_seconds=_number("1 to 600; 120 unless given."),
        restart={"type": "boolean", "description": "Begin with a new shell."},
    ),
    _tool(
        "view",
        "Show a text file with line numbers, or what is in a directory, two levels deep.",
        ["path"],
        path=_PATH,
        first_line=_number("The first line to show, from 1."),
        last_line=_number("The last line to show."),
    ),
    _tool(
        "create",
        "Write a whole file, over one that is there. Directories above it are made.",
        ["path", "content"],
        path=_PATH,
        content=_TEXT,
    ),
    _tool(
        "replace",
        "Replace a piece of a file. `old` must stand in the file exactly once, spaces and all.",
        ["path", "old", "new"],
        path=_PATH,
        old=_TEXT,
        new=_TEXT,
    ),
    _tool(
        "insert",
        "Insert lines into a file.",
        ["path", "after_line", "text"],
        path=_PATH,
        after_line=_number("The line after which they go; 0 for the beginning."),
        text=_TEXT,
    ),
    _tool(
        "search",
        "Find lines that match a regular expression, in the files below a path; as path:number:line.",
        ["pattern"],
        pattern={"type": "string", "description": "A regular expression of Python's."},
        path=_PATH,
        glob={"type": "string", "description": "Only files whose name, or path below `path`, is like this: *.py"},
        max_results=_number("1 to 1000; 200 unless given."),
    ),
]
