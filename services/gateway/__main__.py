"""Run by `python -m services.gateway`."""

from services.common.fast_import import importing

with importing():
    from services.gateway.app import main

main()
