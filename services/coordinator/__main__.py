"""`python -m services.coordinator`."""

from services.coordinator.app import main

main()
