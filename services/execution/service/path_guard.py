"""What no agent is ever shown, whoever asks."""

from pathlib import Path

from services.common.settings import Home

_NEVER_SHOWN = ("execution", "gateway")
"""Below the data directory, beside the tokens: what an agent is shown no part of."""
_NEVER_SHOWN_WHOLE = ("git", "workspace", "workspace/trees")
"""There too: what it is shown parts of, such as its own workspace."""


class PathGuard:
    """Refuses host paths that would open our own data to an agent."""

    def __init__(self, home: Home) -> None:
        root = home.root.resolve()
        self._root = root
        self._private = tuple(
            root / name for name in (*_NEVER_SHOWN, home.cell_token_file.name, home.admin_token_file.name)
        )
        self._whole = tuple(root / name for name in _NEVER_SHOWN_WHOLE)

    def __call__(self, path: Path) -> str | None:
        """Why a path must not be shown, or None."""
        real = path.resolve()
        if self._root.is_relative_to(real) or real in self._whole:
            return "must not contain the service's own data directory"
        if any(real.is_relative_to(private) for private in self._private):
            return "must not lie in the service's own data directory"
        return None
