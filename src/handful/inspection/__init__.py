"""Everything that happens to a picture besides its score."""
