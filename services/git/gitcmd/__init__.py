"""The one place that builds git's command lines and environments, and starts git outside of sandboxes.

Promises: only allow-listed commands and flags run, in an environment built from scratch, with limits on time and
output; a process ends, gracefully first, when its caller is cancelled; no secret is ever in its argv, its output or its
errors.
"""

from services.git.gitcmd.commands import Command, git_argv
from services.git.gitcmd.environment import build_environment
from services.git.gitcmd.errors import (
    FileTooLarge,
    GitError,
    GitFailed,
    GitOutOfMemory,
    GitSilent,
    GitTimedOut,
    OutputTooLarge,
    scrub,
)
from services.git.gitcmd.process import Git, GitOutput, Invocation

__all__ = [
    "Command",
    "FileTooLarge",
    "Git",
    "GitError",
    "GitFailed",
    "GitOutOfMemory",
    "GitOutput",
    "GitSilent",
    "GitTimedOut",
    "Invocation",
    "OutputTooLarge",
    "build_environment",
    "git_argv",
    "scrub",
]
