"""Command-line options of the benchmarks."""

import argparse
from collections.abc import Iterable


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows a module's docstring unchanged, and the default of each option."""
    return argparse.ArgumentParser(description=description, formatter_class=_AsItStands)


def add_parts(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Add a positional argument `parts`: some of `names`, in any order; all of them by default."""
    known = list(names)

    def part(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"there is no part {text!r}, only {', '.join(known)}")
        return text

    parser.add_argument("parts", nargs="*", type=part, default=known, help=f"of {', '.join(known)}; or all")


class _AsItStands(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass
