"""The environment of every git that we start: built from scratch, so that the host cannot change what git does."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

# The host's network settings. Only commands that use the network get them.
NETWORK_VARIABLES: Final = (
    "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_DIR", "SSL_CERT_FILE",
    "all_proxy", "https_proxy", "http_proxy", "no_proxy",
)  # fmt: skip

_AGENT: Final = "SSH_AUTH_SOCK"
_SSH: Final = "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15"
# The keys, the agent and the configuration of whoever runs us are nobody's; the hosts that they know stay known.
_SSH_ALONE: Final = f"{_SSH} -F none -o IdentityAgent=none -o IdentitiesOnly=yes"

_CONFIG: Final[Mapping[str, str]] = {
    # Nothing that a repository names is executed: no hooks, no file system monitor, no credential helper, no signer.
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "credential.helper": "",
    "commit.gpgSign": "false",
    # Whoever runs in the background outlives us and its lock; maintenance is a task of its own.
    "gc.auto": "0",
    "maintenance.auto": "false",
    # Rules of ignoring and attributes come from the tree, never from a home directory.
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    # Paths are bytes to us, and as they are to a reader.
    "core.quotePath": "false",
    "advice.detachedHead": "false",
    "init.defaultBranch": "main",
}


def build_environment(
    home: Path, *, config: Iterable[tuple[str, str]] = (), protocol: str = "none", network: bool = False
) -> dict[str, str]:
    """Return the whole environment of one git process.

    Args:
        home: an empty directory, for programs that want one.
        config: settings for this process, which win over those of every repository. Secrets may stand here: the
            environment of a process is seen by its own user alone, argv by everybody.
        protocol: the one transport that may be used: `https`, `ssh`, `file`, `http` or `none`.
        network: whether the host's proxy and certificate settings are needed.
    """
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LC_ALL": "C",
        "TZ": "UTC",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": protocol,
        # A replace ref shows another object than the one that was asked for.
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_SSH_COMMAND": f"{_SSH_ALONE} -o IdentityFile=none",
    }
    if network:
        environment |= {name: os.environ[name] for name in NETWORK_VARIABLES if name in os.environ}
    return environment | _config_variables([*_CONFIG.items(), *config])


def ssh_variables(key_file: str, *, lends_identity: bool) -> dict[str, str]:
    """Return the variables of a git that uses ssh: with the private key in a file, or else with our own user's keys.

    Without a file those are for nobody unless `lends_identity`. No caller chooses either text.
    """
    if key_file:
        return {"GIT_SSH_COMMAND": f"{_SSH_ALONE} -i {key_file}"}
    if not lends_identity:
        return {}
    return {"GIT_SSH_COMMAND": _SSH} | {name: os.environ[name] for name in (_AGENT,) if name in os.environ}


def _config_variables(config: list[tuple[str, str]]) -> dict[str, str]:
    variables = {"GIT_CONFIG_COUNT": str(len(config))}
    for index, (key, value) in enumerate(config):
        variables[f"GIT_CONFIG_KEY_{index}"] = key
        variables[f"GIT_CONFIG_VALUE_{index}"] = value
    return variables
