"""Run by `python -m services.workspace`."""

from services.workspace.app import main

main()
