"""Writes graphs: everything that touches a private interface of an engine."""
