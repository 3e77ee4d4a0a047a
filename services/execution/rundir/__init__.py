"""The directory of a run: everything that the service and its runner know of each other, as files that outlive both.

Names and formats of the files are persisted: the runner and the service may be of different versions, and each reads
what the other has written. What must not be lost is durable before anybody relies on it. Standard library only.
"""
