"""Owns which cells there are, and the way from one's gateway to another's.

Promises that whoever asks any gateway is answered, or told which cell does not answer, and that a call that one gateway
has passed on to another is passed on no further.
"""
