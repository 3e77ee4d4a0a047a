"""Owns the catalogue, the jobs, and their results, and serves the one public API.

It takes jobs up to its capacity and runs them through this machine's own node services. It promises that it may be
killed at any moment: what was answered is kept, and what was begun goes on when it is back.
"""
