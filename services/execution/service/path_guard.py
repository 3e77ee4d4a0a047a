"""Host paths that no agent is ever shown, whoever asks for them."""

from pathlib import Path

from services.common.home import Home

_NEVER_SHOWN = ("execution", "gateway")
"""Directories of the data directory of which an agent is shown no part; the same holds for the tokens."""
_NEVER_SHOWN_WHOLE = ("git", "workspace", "workspace/trees")
"""Directories of which an agent may be shown parts, such as its own workspace, but not the whole."""


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
        """Return why a path must not be shown, None when it may."""
        real = path.resolve()
        if self._root.is_relative_to(real) or real in self._whole:
            return "must not contain the service's own data directory"
        if any(real.is_relative_to(private) for private in self._private):
            return "must not lie in the service's own data directory"
        return None
