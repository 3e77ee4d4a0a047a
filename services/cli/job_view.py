"""Shows jobs and executions to people."""

from collections.abc import Iterable
from datetime import UTC, datetime

from boatyard.gateway.v1 import job_pb2, output_pb2, runtime_pb2
from boatyard.gateway.v1.checkpoint_pb2 import Checkpoint
from boatyard.git.v1.git_pb2 import Caveat, ChangedFile, OmittedArtifact
from google.protobuf.timestamp_pb2 import Timestamp

from services.agent.settings import DEFAULT_ENGINE
from services.cli import humanize, shapes, usage_view
from services.cli.budgets import in_words, spent_in_words
from services.cli.screen import STATE_STYLES, Line, Screen, first_line, message_lines, quoted
from services.common.caveats import CAVEATS, CaveatKind, told

_FILES_SHOWN = 20
_LABEL_WIDTH = 12
_MARKS = {"DONE": ("✓", "green"), "FAILED": ("✗", "red"), "RUNNING": ("▸", "blue")}
_CHANGES = {
    ChangedFile.CHANGE_ADDED: ("A", "green"),
    ChangedFile.CHANGE_DELETED: ("D", "red"),
    ChangedFile.CHANGE_MODIFIED: ("M", "yellow"),
    ChangedFile.CHANGE_RENAMED: ("R", "cyan"),
    ChangedFile.CHANGE_TYPE: ("T", ""),
}


def stage_line(record: job_pb2.StageRecord) -> Line:
    """Describe a stage in one line."""
    state = shapes.name(job_pb2.StageRecord.State.Name, record.state)
    mark, style = _MARKS.get(state, ("?", "dim"))
    line = Line.of((f"{mark} ", style), (f"{record.name:<{_LABEL_WIDTH}}", "bold"))
    if record.HasField("end_time"):
        line.append(f"{humanize.between(record.start_time, record.end_time):>8}", "dim")
    if record.message:
        line.append(f"  {first_line(record.message)}")
    return line


def verdict(state: str, reason: str, message: str) -> list[Line]:
    """Return a state, the reason for it and its message: a line, and what other lines the message has."""
    line = Line.of((state, f"bold {STATE_STYLES.get(state, '')}"))
    if reason:
        line.append(f" {reason}", "bold")
    if not message:
        return [line]
    first, *others = message_lines(message)
    return [line.append(": ").append(first), *others]


def print_end(screen: Screen, job: job_pb2.Job) -> None:
    """Sum up a job that has ended, on standard error."""
    screen.line(Line())
    for line in (*verdict(shapes.job_state(job), job.reason, job.message), *_facts(job)):
        screen.line(line)


def print_job(screen: Screen, job: job_pb2.Job) -> None:
    """Describe a job in full, on standard output."""
    spec = job.spec
    for line in verdict(shapes.job_state(job), job.reason, job.message):
        screen.show(line)
    rows = [
        ("job", job.job_id),
        ("execution", ", ".join(job.execution_ids)),
        ("prompt", first_line(spec.prompt)),
        ("kind", spec.kind if spec.kind != "task" else ""),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(spec.labels.items()))),
        ("input", ", ".join(_input(spec))),
        ("not before", _moment(spec.not_before_time) if spec.HasField("not_before_time") else ""),
        ("project", spec.project_id),
        ("repository", spec.repository_id),
        ("revision", spec.revision),
        ("engine", engine if (engine := spec.agent.WhichOneof("engine")) != DEFAULT_ENGINE else ""),
        ("model", spec.agent.model),
        ("command", first_line(spec.agent.command.line)),
        ("floors", ", ".join(each.set_by for each in job.floors) or ("waived" if spec.waive_floors else "")),
        ("budget", _budget(job)),
        ("waits for", _waits_for(job)),
        ("submitter", ", ".join(job.submitters)),
        ("steered by", ", ".join(job.steered_by)),
        ("workspace", job.workspace_id),
        ("asked for", _moment(job.create_time) if job.HasField("create_time") else ""),
    ]
    for label, value in rows:
        if value:
            screen.show(_fact(label, value))
    for line in _facts(job):
        screen.show(line)
    for checkpoint in job.checkpoints:
        screen.show(_question(checkpoint))
    if job.timeline:
        screen.show(Line())
    for record in job.timeline:
        screen.show(stage_line(record))
    _print_summary(screen, job.output)


def _budget(job: job_pb2.Job) -> str:
    """Say what a job may spend, and what of it is left."""
    limits = job.spec.policy.budget
    words = in_words(limits)
    if not (words and job.HasField("budget_use")):
        return words
    use = job.budget_use
    open_ones = f", {spent_in_words(use.reserved, limits)} reserved" if use.reserved.requests else ""
    return f"{words}: {spent_in_words(use.spent, limits)} spent{open_ones}, {in_words(use.left)} left"


def print_execution(screen: Screen, execution: runtime_pb2.Execution) -> None:
    """Describe an execution in full, on standard output."""
    shape = shapes.execution(execution)
    for line in verdict(str(shape["state"]), execution.reason, execution.message):
        screen.show(line)
    rows = [
        ("execution", execution.execution_id),
        ("job", f"{execution.job_id} ({' '.join(filter(None, (shape['job_state'], shape['job_reason'])))})"),
        ("project", execution.project_id),
        ("template", execution.template_id),
        ("worker", execution.worker_id),
        ("workspace", execution.workspace_id),
        ("branch", execution.branch),
        ("purpose", f"{shape['purpose']}, attempt {execution.attempt}"),
        ("began", _moment(execution.start_time) if execution.HasField("start_time") else ""),
        ("duration", humanize.duration(execution.duration.ToMilliseconds()) if execution.HasField("duration") else ""),
    ]
    for label, value in rows:
        if value:
            screen.show(_fact(label, value))
    for line in (
        *_program(execution.output),
        *(_fact(label, text) for label, text in usage_view.models(execution.output.usage)),
        *_files(execution.output),
        *_caveats(execution.output),
        *_artifacts(execution.output),
    ):
        screen.show(line)
    _print_summary(screen, execution.output)


def _waits_for(job: job_pb2.Job) -> str:
    word = shapes.waits_for(job)
    return f"{word}: {first_line(job.waiting_for.message)}" if word else ""


def _input(spec: job_pb2.JobSpec) -> Iterable[str]:
    yield from (f"{file.name} ({humanize.size(file.size_bytes)})" for file in spec.files)
    if spec.data:
        yield f"data ({humanize.size(len(spec.data.encode()))})"


def _facts(job: job_pb2.Job) -> Iterable[Line]:
    output = job.output
    if output.total_files_changed:
        kept = "kept on this machine: `boatyard diff` shows it"
        where = "(pushed)" if output.pushed else "(kept on this machine, not pushed)"
        yield _fact("branch", f"{output.branch} {where}") if output.branch else _fact("result", kept)
        yield _fact("commit", output.commit_id)
    elif output.reported and output.branch:
        yield _fact("branch", f"{output.branch} (pushed, as the client says that did the job)")
    yield from _files(output)
    yield from _caveats(output)
    yield from _artifacts(output)
    yield from _verification(job)
    yield from _program(output)
    models = usage_view.models(job.usage, are_of_several=len(job.execution_ids) > 1)
    yield from (_fact(label, text) for label, text in models)
    if output.snapshot_id:
        yield _fact(
            "left", f"{output.snapshot_id}: `boatyard diff` shows it, `boatyard run --from-snapshot` continues from it"
        )
    elapsed = shapes.duration_ms(job)
    if elapsed is not None:
        yield _fact("duration", humanize.duration(elapsed))


def _question(checkpoint: Checkpoint) -> Line:
    state = shapes.checkpoint_state(checkpoint)
    line = _fact("asked", "").append(state, STATE_STYLES.get(state, ""))
    if checkpoint.state == Checkpoint.STATE_PENDING:
        remaining = humanize.until(checkpoint.expire_time)
        line.append(f" for {remaining}, `boatyard approve {checkpoint.job_id}` or `reject`")
    if checkpoint.decider.name:
        line.append(f" by {checkpoint.decider.name} {humanize.age(checkpoint.decide_time)} ago")
    comment = f" — {first_line(checkpoint.comment, 80)}" if checkpoint.comment else ""
    return line.append(f": {first_line(checkpoint.question, 80)}{comment}")


def _files(output: output_pb2.Output) -> Iterable[Line]:
    if not output.commit_id:
        return
    if not output.total_files_changed:
        yield _fact("files", "nothing changed")
        return
    added = sum(change.additions for change in output.files_changed)
    deleted = sum(change.deletions for change in output.files_changed)
    total = humanize.count(output.total_files_changed, "file")
    yield _fact("files", f"{total} changed, ").append(f"+{added}", "green").append(" ").append(f"-{deleted}", "red")
    for change in output.files_changed[:_FILES_SHOWN]:
        yield _file(change)
    hidden = output.total_files_changed - min(len(output.files_changed), _FILES_SHOWN)
    if hidden > 0:
        yield _fact("", f"… and {hidden} more: see `boatyard diff`")


def _caveats(output: output_pb2.Output) -> Iterable[Line]:
    for caveat in output.caveats:
        kind = shapes.name(Caveat.Kind.Name, caveat.kind, "KIND_")
        paths = shapes.paths(caveat.paths, caveat.raw_paths)
        is_loss = kind in CaveatKind.__members__ and CAVEATS[CaveatKind(kind)].is_loss
        label = "incomplete" if is_loss else "but"
        yield _fact(label, told(kind, paths, caveat.total_paths, caveat.detail))


def _artifacts(output: output_pb2.Output) -> Iterable[Line]:
    if output.total_artifacts:
        size = humanize.size(output.total_artifact_bytes)
        yield _fact("artifacts", f"{humanize.count(output.total_artifacts, 'file')}, {size}: see `boatyard artifacts`")
    for each in output.omitted_artifacts:
        reason = OmittedArtifact.Reason.Name(each.reason).removeprefix("REASON_")
        yield _fact("", "").append("not kept ", "yellow").append(f"{each.name}: {reason.lower().replace('_', ' ')}")
    hidden = output.total_omitted_artifacts - len(output.omitted_artifacts)
    if hidden > 0:
        yield _fact("", f"… and {hidden} more are not kept")


def _file(change: output_pb2.FileChange) -> Line:
    path = shapes.path(change.path, change.raw_path) or ""
    if old := shapes.path(change.old_path, change.raw_old_path):
        path = f"{old} → {path}"
    letter, style = _CHANGES.get(change.change, ("?", ""))
    line = _fact("", "").append(f"{letter} ", style).append(path)
    if not change.HasField("additions") and not change.HasField("deletions"):
        return line.append("  binary", "dim")
    if change.additions:
        line.append(f"  +{change.additions}", "green")
    if change.deletions:
        line.append(f"  -{change.deletions}", "red")
    return line


def _verification(job: job_pb2.Job) -> Iterable[Line]:
    if not job.output.HasField("verification"):
        return
    check = job.output.verification
    took = f" in {humanize.duration(check.duration.ToMilliseconds())}" if check.HasField("duration") else ""
    if check.passed:
        yield _fact("verify", "").append("passed", "green").append(took)
        return
    why = check.reason or (f"exit code {check.exit_code}" if check.HasField("exit_code") else "")
    line = _fact("verify", "").append("did not pass", "red").append(f"{took}{': ' if why else ''}{why}")
    yield line.append(f"; see `boatyard logs {check.execution_id}`" if check.execution_id else "")


def _program(output: output_pb2.Output) -> Iterable[Line]:
    if output.HasField("exit_code"):
        yield _fact("agent", f"exit code {output.exit_code}, wrote {humanize.size(output.output_bytes)}")
    elif output.HasField("signal"):
        yield _fact("agent", f"ended by signal {output.signal}, wrote {humanize.size(output.output_bytes)}")
    if output.processes_left:
        yield _fact("but", f"processes of it could not be ended: {output.processes_left}")
    if output.HasField("cpu_seconds"):
        memory = humanize.size(output.memory_peak_bytes)
        yield _fact("used", f"{output.cpu_seconds:.1f} s of CPU time, at most {memory} of memory")
    yield from (_fact(label, text) for label, text in usage_view.tokens(output))


def _print_summary(screen: Screen, output: output_pb2.Output) -> None:
    if output.summary:
        for line in (Line(), *quoted(output.summary.rstrip())):
            screen.show(line)


def _fact(label: str, value: str) -> Line:
    return Line.of((f"  {label:<{_LABEL_WIDTH}}", "dim"), value)


def _moment(time: Timestamp) -> str:
    is_ahead = time.ToDatetime(UTC) > datetime.now(UTC)
    distance = f"in {humanize.until(time)}" if is_ahead else f"{humanize.age(time)} ago"
    return f"{time.ToDatetime():%Y-%m-%d %H:%M:%S} UTC ({distance})"
