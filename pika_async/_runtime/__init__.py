"""Carry out the plan in the running event loop."""
