"""Owns the questions that jobs ask people, and their answers.

Guarantees that the first of any number of answers counts, whoever gives it and through whichever cell, that a waiting
job is claimed again as soon as its question is answered, and that a question which nobody answers in time counts as
rejected.
"""
