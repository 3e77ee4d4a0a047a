"""A module for each command, with a `command` in it. Names and one-line help are in `services.cli.main`."""
