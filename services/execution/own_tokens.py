"""The tokens of the cell itself, which an agent without a sandbox can read."""

from services.common.errors import StartError
from services.common.home import Home, read_token


def own_tokens(home: Home) -> dict[str, bytes]:
    """Return the tokens in a data directory by the names that stand for them in events; without those it lacks.

    They may be of an earlier version, and then have no prefix by which they could be recognized.
    """
    files = {"BOATYARD_TOKEN": home.admin_token_file, "BOATYARD_CELL_TOKEN": home.cell_token_file}
    tokens = {}
    for name, file in files.items():
        try:
            tokens[name] = read_token(file).encode()
        except StartError:  # a cell without a gateway has no administrator
            continue
    return tokens
