"""The most that an agent may have: a floor's for jobs, and a machine's for whatever runs there.

Standard library only.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Final

from services.agent.settings import AgentSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most of each, with the names and units of AgentSettings; None does not limit."""

    timeout: timedelta | None = None
    idle_timeout: timedelta | None = None
    max_turns: int | None = None
    token_budget: int | None = None
    memory_bytes: int | None = None
    processes: int | None = None
    disk_bytes: int | None = None
    output_bytes: int | None = None
    cpu_seconds: int | None = None
    open_files: int | None = None
    file_size_bytes: int | None = None

    @classmethod
    def of(cls, agent: AgentSettings) -> "Limits":
        """Return the limits that settings set."""
        return cls(**{name: getattr(agent, name) for name in LIMITS})

    def __str__(self) -> str:
        """Write the limits that are set, as `parse` reads them."""
        return ",".join(f"{name}={_digits(value)}" for name in LIMITS if (value := getattr(self, name)) is not None)

    @classmethod
    def recorded(cls, text: str) -> "Limits":
        """Read what was written by `str`, by a later version too: what it limits besides is left out."""
        return cls.parse(",".join(entry for entry in text.split(",") if entry.partition("=")[0] in LIMITS))

    @classmethod
    def parse(cls, text: str) -> "Limits":
        """Read `timeout=7200,memory_bytes=8589934592`: spans are in seconds. Raises ValueError."""
        limits: dict[str, int | timedelta] = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = (part.strip() for part in entry.partition("="))
            if name not in LIMITS:
                raise ValueError(f"{name!r} is no limit: there are {', '.join(LIMITS)}")
            try:
                limit = timedelta(seconds=float(value)) if name in _SPANS else int(value)
            except (ValueError, OverflowError):
                raise ValueError(f"{name}={value} is not a number{' of seconds' * (name in _SPANS)}") from None
            if not 0 < _number(limit) < 1 << (63 if name in _WIDE else 31):
                raise ValueError(f"{name}={value} is out of range")
            limits[name] = limit
        known: Any = limits
        return cls(**known)


LIMITS: Final = tuple(each.name for each in fields(Limits))
_SPANS: Final = ("timeout", "idle_timeout")
_WIDE: Final = ("token_budget", "memory_bytes", "disk_bytes", "output_bytes", "cpu_seconds", "file_size_bytes")
NO_LIMITS: Final = Limits()


def limited(settings: object, limits: object, names: Iterable[str] = LIMITS) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name, the value and the bound of each limit that is set; what is open has the bound."""
    for name in names:
        most = getattr(limits, name)
        if most is not None:
            value = getattr(settings, name)
            yield name, most if value is None else value, most


def above(settings: object, limits: object, names: Iterable[str] = LIMITS) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name, the value and the bound of each setting that is more than a limit."""
    return ((name, value, most) for name, value, most in limited(settings, limits, names) if value > most)


def lowered(agent: AgentSettings, limits: Limits) -> AgentSettings:
    """Return settings in which what is more than a limit is as much; what is open stays open."""
    return replace(agent, **{name: most for name, _, most in above(agent, limits)})


def bounded(agent: AgentSettings, limits: Limits) -> AgentSettings:
    """Return settings within limits: what is open has the bound."""
    return replace(agent, **{name: min(most, value) for name, value, most in limited(agent, limits)})


def covers(limits: Limits, other: Limits) -> bool:
    """Return True when limits leave all that others leave."""
    return all(getattr(other, name) is not None for name, _, _ in limited(NO_LIMITS, limits)) and not any(
        above(other, limits)
    )


def widest(several: Iterable[Limits]) -> Limits:
    """Return the most of each that one of several limits leaves."""
    each = list(several)
    values = {name: [getattr(limits, name) for limits in each] for name in LIMITS}
    return Limits(**{name: None if None in found else max(found, default=None) for name, found in values.items()})


def written(value: float | timedelta) -> str:
    """Write a limit for people, such as `3600 s`."""
    return f"{_digits(value)}{' s' * isinstance(value, timedelta)}"


def _digits(value: float | timedelta) -> str:
    """Write whole numbers with all their digits, and spans in seconds."""
    return f"{value.total_seconds():.6f}".rstrip("0").rstrip(".") if isinstance(value, timedelta) else str(value)


def _number(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else value
