"""`boatyard repository`."""

from services.cli.catalogue import LIMIT, ResourceType, resource_commands
from services.cli.flag_table import PROJECT
from services.cli.flags import Flag
from services.cli.parsing import TEXT_OR_FILE

KIND = ResourceType(
    "Repository",
    "Repositories",
    "repository",
    "repository",
    [
        Flag("--url", "url", "Its URL: https, ssh, user@host:path or an absolute path.", "URL"),
        Flag(
            "--ref",
            "default_revision",
            "What jobs start from (default: the remote's default branch).",
            "REF",
        ),
        Flag(
            "--token",
            "token",
            "A token for https; it is stored and never shown. Better given as a file.",
            "@FILE|TOKEN",
            TEXT_OR_FILE,
        ),
        Flag(
            "--ssh-key",
            "token",
            "A private key for ssh, without a passphrase; it is stored and never shown.",
            "@FILE",
            TEXT_OR_FILE,
        ),
        Flag(
            "--ca",
            "ca",
            "Certificates (PEM) of a CA that vouches for its server, besides those that cells believe anyway.",
            "@FILE",
            TEXT_OR_FILE,
        ),
        Flag("--push-option", "push_options", "What its server is told with each push. May be repeated.", "OPTION"),
        LIMIT,
        PROJECT,
    ],
    ["repository_id", "url", "default_revision"],
)

command = resource_commands(KIND, "Manage repositories, the git remotes that jobs may work on.")
