"""The commands: the same engine without a screen, one file each."""
