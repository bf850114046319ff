"""The configuration file: its schema, how it is read and saved, and the directories beside it."""
