"""The command line: `python -m tests.kit.replay SCRIPT… --port 0`."""

import argparse
import contextlib
import json
import signal
import sys
import threading
from pathlib import Path

from tests.kit.replay.conversation import Conversations
from tests.kit.replay.script import ScriptError, read_script
from tests.kit.replay.server import Event, ReplayServer

_EXIT_USAGE = 2


def main() -> None:
    """Serve until a signal. Once it serves, a line that begins with "ready" says where."""
    options = _parser().parse_args()
    try:
        scripts = [read_script(path) for path in options.scripts]
    except ScriptError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_EXIT_USAGE)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(options.log.open("a")) if options.log else None

        def report(request: Event) -> None:
            if log is not None:
                log.write(json.dumps(request) + "\n")
                log.flush()

        server = stack.enter_context(ReplayServer(options.port, Conversations(scripts), options.key, report))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
        origins = ", ".join(
            f"{script.path.name} ({script.origin}, {len(script.replies)} replies)" for script in scripts
        )
        sys.stdout.write(f"ready http://127.0.0.1:{server.server_address[1]} playing {origins}\n")
        sys.stdout.flush()
        server.serve_forever(poll_interval=0.1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.kit.replay",
        description="Play a model's side of conversations from files, on a local port that speaks the Messages API.",
        epilog="Set ANTHROPIC_BASE_URL to the address that it prints, and ANTHROPIC_API_KEY to any value.",
    )
    parser.add_argument("scripts", nargs="+", type=Path, metavar="SCRIPT", help="a conversation in TOML")
    parser.add_argument("--port", type=int, default=0, help="the port to listen on (default: any free port)")
    parser.add_argument("--key", default="", help="the only API key to accept (default: accept any)")
    parser.add_argument("--log", type=Path, help="append one line of JSON per request to this file")
    return parser


main()
