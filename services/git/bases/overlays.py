"""Finds out whether overlays work on this machine, by mounting one."""

import os
import stat
from pathlib import Path

import structlog

from services.git.paths import GitPaths, remove_tree
from services.sandbox import aio, environment
from services.sandbox.errors import SandboxError
from services.sandbox.spec import Overlay, SandboxSpec

_log = structlog.get_logger()


async def overlays_work(paths: GitPaths) -> bool:
    """Return True when a sandbox can mount an overlay, with a whiteout, on the file system where bases lie."""
    scratch = paths.scratch()
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
        works, output = ended.exit_code == 0, ended.stderr.decode("utf-8", "replace")[-500:]
    except (SandboxError, OSError) as error:
        works, output = False, str(error)
    finally:
        remove_tree(scratch)
    if not works:
        _log.info("overlays do not work here: every base is a whole tree", said=output)
    return works
