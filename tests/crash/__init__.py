"""Crash tests: the command line as a real process, killed or interrupted, checked against the ledger of an emulator."""
