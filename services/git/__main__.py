"""Run by `python -m services.git`."""

from services.common.fast_import import importing

with importing():
    from services.git.app import main

main()
