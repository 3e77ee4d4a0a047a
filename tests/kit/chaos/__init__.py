"""Chaos: jobs of every sort while processes of every kind are killed, stopped and restarted, and what must hold after.

works     what jobs are asked to do, and how each must end
orders    jobs as they were asked for: submitted, cancelled and answered over gateways that come and go
answers   what people say to what jobs ask them
machines  cells and coordinators, which may be killed
fleet     the cells, their database, their remotes and the server that webhooks are sent to
blows     what befalls them, by a seed
facts     what is there when all is over, read from outside of the product
proofs    what must be true of it, each with words for whoever reads that it is not
run       all of it together
"""
