"""Many processes on one database: the same jobs, driven by workers on any number of machines."""

__all__: list[str] = []
