"""The ids of what belongs to an attempt of a job, and the names of its steps: derived, and so stored nowhere."""


def is_of_attempt(some_id: str, execution_id: str) -> bool:
    """True when an id is an attempt's own or derived from it; `execution_id` is that of its first round's agent."""
    return some_id == execution_id or some_id.startswith(f"{execution_id}-")


def agent_of(execution_id: str, number: int) -> str:
    """Return the id of a round's agent; `execution_id` is that of the first round's."""
    return execution_id if number == 1 else f"{execution_id}-round-{number}"


def step_in(name: str, number: int) -> str:
    """Return what a step is called in a round."""
    return name if number == 1 else f"{name}-{number}"


def workspace_of(execution_id: str) -> str:
    """Return the id of the workspace that an execution works in."""
    return "ws-" + execution_id.removeprefix("exec-")


def execution_of_workspace(workspace_id: str) -> str:
    """Return the execution that worked in a workspace; of any other id, one that does not exist."""
    return "exec-" + workspace_id.removeprefix("ws-")


def snapshot_of(execution_id: str) -> str:
    """Return the id of the snapshot of an agent's workspace."""
    return "snap-" + execution_id.removeprefix("exec-")


def execution_of_snapshot(snapshot_id: str) -> str:
    """Return the execution whose workspace a snapshot was taken of; of any other id, one that does not exist."""
    return "exec-" + snapshot_id.removeprefix("snap-")
