"""Runs a cell on one machine: the four services as processes of their own, kept alive, and ended together.

Promises: a killed supervisor leaves no service behind; a service that dies is started again; agents outlive `up`, and
`down` ends every process of a data directory, whatever was killed before.
"""
