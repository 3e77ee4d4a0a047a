"""The findings of `boatyard doctor`."""

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `mend` is how to fix it: a command, if there is one."""

    check: str
    status: str
    message: str
    mend: str = ""
