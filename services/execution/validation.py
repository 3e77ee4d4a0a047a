"""What is wrong with a request, as the readers of its parts report it."""

Violations = list[tuple[str, str]]
"""Pairs of a field's path and what is wrong with it."""
