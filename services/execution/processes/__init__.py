"""The processes of an agent: started in the tier of its sandbox, watched, measured, and ended to the last one.

`agent` has the one interface by which the program of any tier is watched and ended, `meter` measures it against its
bounds, `pump` moves its output into the events, and `verdict` says what its end means. After `finish` no process of the
program is left running, or the caller learns how many are. Only the engines know what the program is for.
"""
