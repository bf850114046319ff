"""The stored form: what the bytes in a vault mean (docs/format.md)."""
