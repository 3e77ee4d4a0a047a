"""Shows the events of an execution to people."""

from boatyard.execution.v1 import event_pb2

from services.cli import shapes
from services.cli.screen import Screen, first_line, quoted
from services.common.untrusted_json import parse_json

_RESULT_LINES = 8
_LINE_CHARACTERS = 160


def print_event(screen: Screen, event: event_pb2.Event, *, as_json: bool) -> None:
    """Show one event of an execution."""
    if as_json:
        screen.json(shapes.event(event))
        return
    match event.WhichOneof("kind"):
        case "output":
            _print_output(screen, event.output)
        case "permission_request":
            request = event.permission_request
            screen.say(
                f"? {request.tool} needs permission: `boatyard allow ID {request.permission_id}`, or `boatyard deny`",
                style="magenta",
            )
        case "network_decision" if not event.network_decision.allowed:
            decision = event.network_decision
            screen.say(f"✗ {decision.host}:{decision.port} was refused: {decision.reason}", style="yellow")
        case "network_decision":
            screen.say(f"→ {event.network_decision.host}:{event.network_decision.port}")
        case "message_delivered":
            screen.say_all(f"> {event.message_delivered.text}", style="magenta")
        case "vitals":
            pass  # for programs; `boatyard show` has the totals
        case "state_change" if event.state_change.message:
            screen.say(f"{event.state_change.state} {event.state_change.reason}: {event.state_change.message}")
        case "note":
            _print_note(screen, event.note)
        case _:
            _print_model_event(screen, event)


def _print_note(screen: Screen, note: event_pb2.Note) -> None:
    screen.say(note.text)
    if note.output:
        screen.output(note.output, to_stderr=False)


def _print_output(screen: Screen, output: event_pb2.OutputChunk) -> None:
    """Show output; of lines for programs only what they mean, which is in the events that follow, unless asked to."""
    stream = shapes.stream(output)
    if stream != "raw" or screen.shows_lines():
        screen.output(output.data, to_stderr=stream == "stderr")


def _print_model_event(screen: Screen, event: event_pb2.Event) -> None:
    """Show a model's text, thoughts, tool calls and usage, unless the lines that say so are shown; ignore others."""
    if screen.has_shown_lines:
        return
    match event.WhichOneof("kind"):
        case "text":
            screen.speech(event.text.text)
        case "thinking":
            screen.thought(event.thinking.text)
        case "tool_call":
            screen.say(f"→ {event.tool_call.tool} {_tool_input(event.tool_call.input)}", style="cyan")
        case "tool_result":
            _print_tool_result(screen, event.tool_result)
        case "usage":
            screen.say(_usage(event.usage))
        case "turn_end":
            screen.end_speech()


def _tool_input(text: str) -> str:
    """Return the most informative part of a tool's input, as one line."""
    try:
        arguments = parse_json(text)
    except ValueError:
        return first_line(text)
    if not isinstance(arguments, dict):
        return first_line(text)
    main = next((arguments[name] for name in ("command", "pattern", "path") if name in arguments), text)
    return first_line(str(main))


def _print_tool_result(screen: Screen, result: event_pb2.ToolResult) -> None:
    """Show the beginning of a tool's result."""
    lines = result.output.rstrip().splitlines()
    shown = "\n".join(line[:_LINE_CHARACTERS] for line in lines[:_RESULT_LINES])
    for line in quoted(shown, "red" if result.is_error else "dim") if shown else ():
        screen.line(line)
    if len(lines) > _RESULT_LINES:
        screen.say(f"  … {len(lines) - _RESULT_LINES} more lines")


def _usage(value: event_pb2.ModelUsage) -> str:
    """Describe what one request to the model used."""
    read = value.input_tokens + value.cache_read_tokens + value.cache_write_tokens
    cached = f" ({value.cache_read_tokens:,} of them cached)" if value.cache_read_tokens else ""
    cost = f", ${value.cost_usd:.4f}" if value.HasField("cost_usd") else ", cost unknown"
    beside = f", {value.web_searches:,} searches" * bool(value.web_searches) + "".join(
        f", {one}" for one in value.terms
    )
    return f"  {read:,} tokens read{cached}, {value.output_tokens:,} written{beside}{cost}"
