"""How a host is reached: over SSH, or directly when the app runs on it."""
