"""Control groups: what limits, counts and ends all processes of a run, whatever they call themselves.

`group` is what a runner makes and uses, from the standard library alone; `hierarchies` finds out for the service where
the machine lets groups be made, and removes what is left of them. Whoever holds a group can end all that is in it, and
is told how much is left. It knows neither runs nor engines.
"""
