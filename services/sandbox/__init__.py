"""Processes kept apart from the host: a spec of what one may see and use, and the ways to start it.

`prepare` turns a spec into what to spawn, for callers that spawn by themselves; `aio.run` spawns and waits. Whoever
spawns must do so from the main thread: the kernel ends the sandbox together with the thread that started it.
Standard library only, for the runner of an execution lives as long as its agent and should weigh nothing.
"""
