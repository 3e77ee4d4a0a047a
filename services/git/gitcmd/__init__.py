"""The one place that starts git.

A command is built from an allow-listed table, runs in an environment built from nothing, within a time and an output
bound, and dies politely with whoever waits for it. No secret ever stands in its argv, its output or its errors.
"""

from services.git.gitcmd.commands import Command, git_argv
from services.git.gitcmd.environment import build_environment
from services.git.gitcmd.errors import GitError, GitFailed, GitTimedOut, OutputTooLarge
from services.git.gitcmd.process import Git, GitOutput, Invocation

__all__ = [
    "Command",
    "Git",
    "GitError",
    "GitFailed",
    "GitOutput",
    "GitTimedOut",
    "Invocation",
    "OutputTooLarge",
    "build_environment",
    "git_argv",
]
