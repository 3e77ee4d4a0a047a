"""One module a command; each has a `command`. Names and one-line help stand in `services.cli.main`."""
