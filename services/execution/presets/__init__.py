"""The agents that a machine knows by name: for each a preset, which is data, in a TOML file.

Those of Boatyard are in `builtin`, an operator's in the directory of a setting. `preset` reads and checks one file,
`presets` has all of a machine, and `tools` finds their programs there. Standard library only.
"""
