"""A library for sandboxed processes: a spec of what a process may see and use, and the ways to start it.

`prepare` turns a spec into arguments for spawning, for callers that spawn by themselves; `aio.run` spawns and waits.
Processes must be spawned from the main thread: the kernel ends the sandbox together with the thread that started it.
It uses the standard library only, because the runner of an execution lives as long as its agent and should be small.
"""
