"""Run by `python -m services.gateway`."""

from services.common.starting import importing

with importing():
    from services.gateway.app import main

main()
