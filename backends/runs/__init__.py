"""A run is one process that carries out one request on one host; it outlives the terminal that began it."""
