"""Keeps secrets out of what is recorded, even when they arrive in pieces. Standard library only: runners import it.

`formats` has the forms of well-known tokens, `needles` the values that an execution was given, and `strand` finds both
in a stream of bytes. Secrets that an agent transforms on purpose (reversed, compressed) are not found, and cannot be.
"""
