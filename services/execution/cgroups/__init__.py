"""Control groups: they limit, count and end all processes of a run, whatever those call themselves.

`group` is what a runner makes and uses, with the standard library alone; `hierarchies` finds out for the service where
the machine lets it make groups, and removes groups that are left. Whoever holds a group can end all processes in it,
and learns how many are left. This package knows neither runs nor engines.
"""
