"""The four assets, one module each, one contract."""
