"""Owns what models cost, in sums: by project, worker, template, job, provider, model, label and day, over all cells.

It promises that each request is in one row, once; that rows stay when their jobs are removed, for a time of their own;
and that a cost which is not known is never taken for 0.
"""
