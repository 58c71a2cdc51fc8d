"""Learns from references."""
