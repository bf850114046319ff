"""The wizard that adds a vault: what it is, where, how, proved, saved. Nothing is kept of it before the last button."""
