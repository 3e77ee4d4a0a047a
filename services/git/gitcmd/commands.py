"""Which git commands we may run, with which flags, and what makes each of them harmless.

Nothing outside this table can be run. A flag that is not listed, or a positional argument that looks like a flag, is a
bug of ours and raises ValueError: no input can choose flags.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Spec:
    """The rules of one subcommand. A flag that ends in `=` takes a value; `config` applies to this command only."""

    flags: frozenset[str] = frozenset()
    config: Mapping[str, str] = field(default_factory=dict)
    end_of_options: bool = True
    paths: bool = False


def _spec(
    *flags: str, config: Mapping[str, str] | None = None, end_of_options: bool = True, paths: bool = False
) -> Spec:
    return Spec(frozenset(flags), config or {}, end_of_options, paths)


# Objects from elsewhere are checked as they arrive: what their trees may hold, and what .gitmodules may say. Mistakes
# in what a commit or tag says of its people and times pass. Nobody can mend them in a history that others build on,
# and nothing but a log reads them.
_MISTAKES: Final = (
    *("badDate", "badDateOverflow", "badEmail", "badName", "badTimezone", "zeroPaddedDate"),
    *("missingAuthor", "missingCommitter", "multipleAuthors", "missingEmail", "missingNameBeforeEmail"),
    *("missingSpaceBeforeDate", "missingSpaceBeforeEmail", "nulInCommit", "zeroPaddedFilemode"),
)
# Git reads a tree whose entries are out of order as it is. No tool makes one any more, so that no agent needs to.
_UPSTREAM_MISTAKES: Final = (*_MISTAKES, "treeNotSorted")
_CHECKED: Final = {"fetch.fsckObjects": "true"} | {f"fetch.fsck.{each}": "ignore" for each in _UPSTREAM_MISTAKES}
STRICT_FLAG: Final = "--strict=" + ",".join(f"{mistake}=ignore" for mistake in _MISTAKES)

_REMOTE: Final = _CHECKED | {
    # What arrives becomes one file, a pack, whose size is limited. Unpacked, it would be up to a hundred of any size.
    "fetch.unpackLimit": "1",
    # A redirect could lead to an address that only this host can reach, and would carry the token there.
    "http.followRedirects": "false",
    "fetch.recurseSubmodules": "no",
    "submodule.recurse": "false",
}

COMMANDS: Final[Mapping[str, Spec]] = {
    "add": _spec("--update", paths=True),
    "cat-file": _spec("--batch-check=", "--batch="),
    "check-attr": _spec("-z", "--stdin", "--cached", end_of_options=False),
    "check-ignore": _spec("-z", "--stdin"),
    # Does not know --end-of-options in git 2.39, so it is only ever given commit ids.
    "checkout": _spec("--quiet", "--detach", config={"submodule.recurse": "false"}, end_of_options=False),
    "checkout-index": _spec("-u", "-z", "--stdin"),
    "clone": _spec(
        *("--quiet", "--shared", "--no-checkout", "--template=", "--no-recurse-submodules"),
        *("--progress", "--depth=", "--branch=", "--upload-pack="),
        config=_REMOTE,
    ),
    "commit": _spec("--quiet", "--no-verify", "--file=", "--cleanup=", paths=True),
    "commit-tree": _spec("-p", "-F"),
    # Writes only files of ours that nobody else can reach; keys and values are ours, or what has been checked. What a
    # commit has is only listed, and includes no other file.
    "config": _spec("--file=", "--blob=", "--list", "-z", end_of_options=False),
    # Diff programs named by a repository are never run. Renames are detected among as many files as a person would
    # read about.
    "diff": _spec(
        *("--no-ext-diff", "--no-textconv", "--no-color", "--full-index", "--src-prefix=", "--dst-prefix="),
        *(
            "--raw",
            "--numstat",
            "--name-only",
            "--binary",
            "-z",
            "--find-renames",
            "--no-renames",
            "--cached",
            "--diff-filter=",
            "--no-abbrev",
        ),
        config={"diff.renameLimit": "2000", "diff.ignoreSubmodules": "none"},
        paths=True,
    ),
    "fetch": _spec(
        *("--quiet", "--progress", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"),
        *("--stdin", "--upload-pack="),
        # The commit graph speeds up finding the nearest base.
        config=_REMOTE | {"fetch.writeCommitGraph": "true"},
    ),
    "for-each-ref": _spec("--format="),
    # In a sandbox alone: pointers of Git LFS.
    "hash-object": _spec("-w", "--no-filters", "--stdin-paths", end_of_options=False),
    # What comes out of a sandbox is checked object by object, and the links between them, before it is kept.
    "index-pack": _spec("--stdin", STRICT_FLAG, end_of_options=False),
    # An empty template: no hooks, and no sample files in every tree.
    "init": _spec("--quiet", "--bare", "--template="),
    "log": _spec(
        *("--format=", "--raw", "-z", "-m", "--no-renames", "--no-abbrev", "--no-ext-diff", "--no-textconv"),
        *("--not", "--exclude=", "--all"),
        # Nobody's signature is of interest, and no program that a repository names looks at one.
        config={"log.showSignature": "false", "diff.ignoreSubmodules": "none"},
    ),
    "ls-files": _spec(
        *("-z", "--stage", "--cached", "--ignored", "--others"),
        *("--exclude-standard", "--exclude=", "--exclude-from=", "--exclude-per-directory="),
        paths=True,
    ),
    "ls-remote": _spec("--symref", "--upload-pack=", config=_REMOTE),
    "ls-tree": _spec("-r", "-d", "-z", "--name-only"),
    "merge-base": _spec("--is-ancestor"),
    "pack-objects": _spec("--revs", "--stdout", "-q"),
    # For result stores only: no tree borrows from one.
    "prune": _spec("--expire=", end_of_options=False),
    "push": _spec(
        *(
            "--porcelain",
            "--progress",
            "--force-with-lease=",
            "--no-verify",
            "--receive-pack=",
            "--dry-run",
            "--push-option=",
        ),
        config=_REMOTE | {"push.gpgSign": "false", "push.recurseSubmodules": "no"},
    ),
    "read-tree": _spec("-i", "-m"),
    "repack": _spec("-A", "-d", "-l", "-q", "--geometric=", "--unpack-unreachable=", end_of_options=False),
    "rev-list": _spec("--count", "--first-parent", "--max-count=", paths=True),
    "rev-parse": _spec("--verify", "--quiet"),
    "status": _spec("--porcelain=v2", "-z", "--untracked-files=all", "--branch", paths=True),
    "symbolic-ref": _spec("--quiet"),
    "update-index": _spec(
        *("-q", "--refresh", "--ignore-missing"),
        *("--add", "--remove", "--force-remove", "--index-info", "-z", "--stdin"),
    ),
    "update-ref": _spec("-d", "--no-deref", "--stdin"),
    "version": _spec(),
    "write-tree": _spec(),
}


@dataclass(frozen=True, slots=True)
class Command:
    """One git command: `flags` from the table, positional `args` that are never flags, and `paths` after `--`."""

    name: str
    flags: tuple[str | bytes, ...] = ()
    args: tuple[str | bytes, ...] = ()
    paths: tuple[bytes, ...] = ()

    @property
    def spec(self) -> Spec:
        """Return the table's row.

        Raises:
            ValueError: git may not be run with this subcommand.
        """
        try:
            return COMMANDS[self.name]
        except KeyError:
            raise ValueError(f"git {self.name} is not in the table of allowed commands") from None


def git_argv(command: Command) -> tuple[bytes, ...]:
    """Return the arguments that follow `git` and its global options.

    Raises:
        ValueError: the subcommand or a flag is not in the table, or a positional argument looks like a flag.
    """
    spec = command.spec
    flags = _flags(command, spec)
    args = tuple(_positional(command.name, arg) for arg in command.args)
    if command.paths and not spec.paths:
        raise ValueError(f"git {command.name} takes no paths here")
    end = (b"--end-of-options",) if args and spec.end_of_options else ()
    separator = (b"--", *command.paths) if spec.paths else ()
    return (command.name.encode(), *flags, *end, *args, *separator)


def _flags(command: Command, spec: Spec) -> tuple[bytes, ...]:
    result: list[bytes] = []
    takes_value = False
    for flag in (_bytes(flag) for flag in command.flags):
        # The values of -p and -F are arguments of their own: commit ids and `-`, written by us.
        if takes_value:
            takes_value = False
        else:
            name, equals, _ = flag.partition(b"=")
            names = {flag.decode("utf-8", "replace"), (name + equals).decode("utf-8", "replace")}
            if not flag.startswith(b"-") or not names & spec.flags:
                raise ValueError(f"git {command.name} may not be given {flag!r}")
            takes_value = flag in {b"-p", b"-F"}
        if b"\0" in flag:
            raise ValueError(f"a flag of git {command.name} holds a NUL byte")
        result.append(flag)
    return tuple(result)


def _positional(name: str, arg: str | bytes) -> bytes:
    value = _bytes(arg)
    # A single `-` means standard input or output; git does not take it for a flag.
    if (value.startswith(b"-") and value != b"-") or b"\0" in value:
        raise ValueError(f"{value!r} may not be an argument of git {name}")
    return value


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
