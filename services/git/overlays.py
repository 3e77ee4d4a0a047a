"""Whether layers can be stacked on this machine, found out by stacking some."""

import os
import stat
from pathlib import Path

import structlog

from services.git.places import Places
from services.git.removal import remove
from services.sandbox import aio, environment
from services.sandbox.errors import SandboxError
from services.sandbox.spec import Overlay, SandboxSpec

_log = structlog.get_logger()


async def overlays_work(places: Places) -> bool:
    """Stack a layer that hides a file, where bases lie, in a sandbox: what every user of a delta layer can do then."""
    scratch = places.scratch()
    try:
        below, above, upper, work = (scratch / name for name in ("below", "above", "upper", "work"))
        for directory in (below, above, upper, work):
            directory.mkdir()
        for name in ("kept", "hidden"):
            (below / name).touch()
        os.mknod(above / "hidden", stat.S_IFCHR, os.makedev(0, 0))
        target = Path("/workspace")
        spec = SandboxSpec(
            argv=(b"/bin/sh", b"-c", b"test -e kept && ! test -e hidden"),
            cwd=target,
            mounts=(Overlay((above, below), upper, work, target),),
            environment=environment.base(),
        )
        ended = await aio.run(spec, timeout=30)
        works, said = ended.exit_code == 0, ended.stderr.decode("utf-8", "replace")[-500:]
    except (SandboxError, OSError) as error:
        works, said = False, str(error)
    finally:
        remove(scratch)
    if not works:
        _log.info("layers cannot be stacked here: every base is a whole tree", said=said)
    return works
