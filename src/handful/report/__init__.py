"""Writes a report."""
