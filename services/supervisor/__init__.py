"""Runs a cell on one machine: the four services as separate processes, kept alive and stopped together.

Guarantees: a killed supervisor leaves no service behind; a service that dies is restarted; agents outlive `up`, and
`down` ends every process of a data directory, whatever was killed before.
"""
