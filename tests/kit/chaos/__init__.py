"""Chaos: jobs of every sort run while processes of every kind are killed, paused and restarted; what must hold then.

workloads    what jobs are asked to do, and how each must end
submissions  the jobs, submitted and cancelled over gateways that come and go
answers      what people answer to the questions that jobs ask
machines     cells and coordinators, which may be killed
fleet        the cells, their database, their remotes and the server that webhooks are sent to
faults       what is done to them, chosen by a seed
facts        what is there when all is over, read from outside of the product
checks       what must be true of the facts, with a message for each violation
run          all of it together
"""
