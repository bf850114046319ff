"""Where backups are kept. A new kind of vault is one module and one line in `open.py`."""
