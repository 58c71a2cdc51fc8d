"""Folders and pictures → pixels; the only code that reads pictures."""
