"""The command line killed, starved and interrupted as a real process, judged by the ledger of an emulator that survives."""
