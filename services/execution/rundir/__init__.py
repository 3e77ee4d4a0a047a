"""The directory of a run: all that the service and its runner know of each other, as files that outlive both.

Their names and forms are persisted: a runner of one version meets a service of another, so both read what either has
written. Whatever one of them must not lose is durable before it is relied on. Standard library only.
"""
