"""Run by `python -m services.git`."""

from services.git.app import main

main()
