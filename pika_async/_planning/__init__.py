"""Planning of the next action of one client. Pure: reads no clock, draws no random numbers, does no I/O."""
