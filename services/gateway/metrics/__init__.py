"""What the gateway counts of jobs, and what it looks up of them when somebody asks.

What is counted is what this gateway has written, from its start on: the sum over cells is that of all. What is looked
up in the database is, but where it says otherwise, everybody's: each cell tells the same.
"""
