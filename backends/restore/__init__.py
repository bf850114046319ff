"""Restoring: what each asset does to come back beside the live data, be proven, be swapped in, and be undone."""
