"""What drives an agent: each engine has its own module here, with everything that only this engine needs.

Nothing outside an engine's module asks which engine it is. What others need to know about an engine is one of its
traits (`services.agent.engines`). It is found by its name: see `services.execution.engine.load`.
"""
