"""One screen a file, its CSS beside it."""
