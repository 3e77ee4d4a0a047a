"""What a check of `boatyard doctor` finds."""

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `mend` is what to do about it, as a command where there is one."""

    check: str
    status: str
    message: str
    mend: str = ""
