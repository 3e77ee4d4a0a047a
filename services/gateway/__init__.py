"""Owns the story: what jobs refer to, the jobs, and what came of them. The one public API.

It takes jobs up to its capacity and has them carried on this machine's own node services. It promises that it may be
killed at any moment: what was answered is kept, and what was begun goes on when it is back.
"""
