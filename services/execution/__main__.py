"""Run by `python -m services.execution`."""

from services.execution.app import main

main()
