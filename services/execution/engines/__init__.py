"""What drives an agent: each engine has its own package, which holds everything that only this engine needs.

Nothing outside an engine's package asks which engine it is. What others need to know about an engine is one of its
traits (`services.common.engines`).
"""
