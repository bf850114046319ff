"""The restore wizard: four pages that change nothing before the last button. One file a page."""
