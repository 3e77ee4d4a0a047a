"""What no agent is ever shown, whoever asks."""

from pathlib import Path

from services.common.settings import Home


class PathGuard:
    """Refuses host paths that would open our own data to an agent."""

    def __init__(self, home: Home) -> None:
        root = home.root.resolve()
        relative = (home.execution, home.gateway, home.cell_token_file, home.admin_token_file)
        self._root = root
        self._private = tuple(root / path.relative_to(home.root) for path in relative)
        self._whole = tuple(
            root / path.relative_to(home.root) for path in (home.git, home.workspace, home.workspace_trees)
        )

    def __call__(self, path: Path) -> str | None:
        """Why a path must not be shown, or None."""
        real = path.resolve()
        if self._root.is_relative_to(real) or real in self._whole:
            return "must not contain the service's own data directory"
        if any(real.is_relative_to(private) for private in self._private):
            return "must not lie in the service's own data directory"
        return None
