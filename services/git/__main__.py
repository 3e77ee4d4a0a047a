"""Run by `python -m services.git`."""

from services.common.starting import importing

with importing():
    from services.git.app import main

main()
