"""Owns the questions that jobs ask people, and their answers.

Promises that of any number of answers the first one holds, whoever gives it and through whichever cell, that a job
which waits is taken again as soon as it is answered, and that one which nobody answers in time counts as refused.
"""
