"""Run by `python -m services.workspace`."""

from services.common.starting import importing

with importing():
    from services.workspace.app import main

main()
