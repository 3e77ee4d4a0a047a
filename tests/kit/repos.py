"""Real repositories made with real git: the same commits on every machine, whatever its configuration."""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FILES = {"README": "a repository\n", "src/main.py": "print('hello')\n", "src/lib.py": "def one():\n    return 1\n"}

_EPOCH = 1_700_000_000


class Repo:
    """A repository with a working tree. Its clock advances by a minute with each commit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._minute = 0

    @classmethod
    def init(cls, path: Path, *, branch: str = "main") -> "Repo":
        """Make an empty repository."""
        path.mkdir(parents=True, exist_ok=True)
        repo = cls(path)
        repo.git("init", "--quiet", f"--initial-branch={branch}")
        return repo

    @classmethod
    def sample(cls, path: Path) -> "Repo":
        """Make a repository of two commits and a tag on the first: git makes it once, and others are copies."""
        path.mkdir(parents=True, exist_ok=True)
        for name, mode, content in _sample():
            file = path / name
            if content is None:
                file.mkdir(mode, exist_ok=True)
            else:
                file.write_bytes(content)
                file.chmod(mode)
        repo = cls(path)
        repo._minute = 2  # as many as there are commits
        return repo

    def git(self, *args: str | bytes | Path, code: int = 0, stdin: bytes = b"") -> str:
        """Run git, expect its exit code, and return what it wrote without the last line break."""
        date = f"@{_EPOCH + 60 * self._minute} +0000"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@example.com",
            "GIT_AUTHOR_DATE": date,
            "GIT_COMMITTER_NAME": "Ada",
            "GIT_COMMITTER_EMAIL": "ada@example.com",
            "GIT_COMMITTER_DATE": date,
        }
        done = subprocess.run(
            ["git", *args], check=False, cwd=self.path, env=environment, input=stdin, capture_output=True
        )
        assert done.returncode == code, f"git {args}: {done.returncode}\n{done.stderr.decode(errors='replace')}"
        return done.stdout.decode(errors="surrogateescape").removesuffix("\n")

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        """Write files by their paths; None removes one."""
        for name, content in files.items():
            path = self.path / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, message: str, files: Mapping[str, str | bytes | None] | None = None) -> str:
        """Write files and commit everything; return the commit's id."""
        self.write(files or {})
        self._minute += 1
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", f"--message={message}")
        return self.head()

    def head(self, revision: str = "HEAD") -> str:
        """Return the id of a commit."""
        return self.git("rev-parse", "--verify", f"{revision}^{{commit}}")

    def bare_clone(self, path: Path) -> "Repo":
        """Make a bare clone, to be a remote."""
        self.git("clone", "--quiet", "--bare", str(self.path), str(path))
        return Repo(path)

    def files(self, revision: str = "HEAD") -> dict[str, str]:
        """Return every file of a commit with its content."""
        names = [name for name in self.git("ls-tree", "-r", "-z", "--name-only", revision).split("\0") if name]
        return {name: self.git("cat-file", "blob", f"{revision}:{name}") for name in names}


@cache
def _sample() -> list[tuple[Path, int, bytes | None]]:
    """Return the files and directories (None) of the sample, directories first."""
    with tempfile.TemporaryDirectory() as directory:
        repo = Repo.init(Path(directory))
        repo.commit("first", FILES)
        repo.git("tag", "v1")
        repo.commit("second", {"src/lib.py": "def one():\n    return 1.0\n"})
        return [
            (path.relative_to(directory), path.stat().st_mode & 0o777, None if path.is_dir() else path.read_bytes())
            for path in sorted(repo.path.rglob("*"))
        ]
