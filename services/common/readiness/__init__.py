"""How a node service says what keeps it from doing its part of a job, before one is brought to it."""
