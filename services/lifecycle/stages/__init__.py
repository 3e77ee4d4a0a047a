"""What is done for a job, one small module a group of steps. Each step may be done again, and then changes nothing."""
