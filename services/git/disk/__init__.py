"""The disk that git's stores share: what lies there, how much it takes, and what goes first when room is short.

Promises: nothing is removed that is pinned, lies below another base, or is being worked from; what does not fit is
refused before it is begun.
"""
