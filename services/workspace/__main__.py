"""Run by `python -m services.workspace`."""

from services.common.fast_import import importing

with importing():
    from services.workspace.app import main

main()
