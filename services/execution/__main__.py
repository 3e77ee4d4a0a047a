"""Run by `python -m services.execution`."""

from services.common.fast_import import importing

with importing():
    from services.execution.app import main

main()
