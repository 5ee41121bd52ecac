"""Pages of a batch for people: the gallery. Sends nothing and depends on no client."""
