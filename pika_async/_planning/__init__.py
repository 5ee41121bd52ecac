"""Decide what to do next with each job. Pure: no clock, no randomness, no I/O."""
