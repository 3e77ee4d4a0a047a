"""Run by `python -m services.execution`."""

from services.common.starting import importing

with importing():
    from services.execution.app import main

main()
