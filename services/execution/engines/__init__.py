"""What drives an agent: each engine has a room of its own, with all that is its own.

Nothing outside of an engine's room asks which engine it is. What others want to know of one is a trait of it
(`services.common.engines`).
"""
