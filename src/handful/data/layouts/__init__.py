"""Reads labelled data sets, one layout a file."""
