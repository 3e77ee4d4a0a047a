"""Compare numbers with their goals."""


def at_least(value: float, aim: float) -> str:
    """Return a text that says whether a number reaches its goal."""
    return f"(wanted: >= {aim:g}, {'met' if value >= aim else 'MISSED'})"


def at_most(value: float, aim: float) -> str:
    """Return a text that says whether a number stays within its goal."""
    return f"(wanted: <= {aim:g}, {'met' if value <= aim else 'MISSED'})"
