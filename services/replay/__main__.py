"""Run by `python -m services.replay SCRIPT… --port 0`."""

from services.replay.app import main

main()
