"""Numbers, and what is wanted of them."""


def at_least(value: float, aim: float) -> str:
    """Say whether a number is as large as wanted."""
    return f"(wanted: >= {aim:g}, {'met' if value >= aim else 'MISSED'})"


def at_most(value: float, aim: float) -> str:
    """Say whether a number is as small as wanted."""
    return f"(wanted: <= {aim:g}, {'met' if value <= aim else 'MISSED'})"
