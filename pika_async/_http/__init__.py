"""Send and receive bytes: calls, downloads and callbacks."""
