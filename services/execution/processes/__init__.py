"""The processes of an agent: started in the tier of its sandbox, listened to, measured, and ended to the last one.

`agent` has the one way in which each tier's program is watched and ended, `meter` measures it against its bounds,
`pump` brings its output into the events, and `verdict` says what its end comes to. It promises that after `finish`
nothing of the program is left running, or says how much is. What the program is for, the engines know.
"""
