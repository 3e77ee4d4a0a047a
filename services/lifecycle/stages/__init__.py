"""The stages of a job, a small module for each group of steps. Repeating a step changes nothing."""
