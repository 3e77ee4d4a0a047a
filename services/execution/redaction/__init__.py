"""Keeps secrets out of what is recorded, also when they come in pieces. Standard library only: runners import it.

`formats` knows well-known tokens by their form, `needles` the values that an execution was given, and `strand` finds
either in a flow of bytes. Text that an agent changes on purpose (reversed, compressed) is not found, and cannot be.
"""
