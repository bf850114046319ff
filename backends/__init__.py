"""The engine of Mastovault: everything but the screens."""
