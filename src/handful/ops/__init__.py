"""Pure tensor functions that methods share: no state, no files, no names of data sets."""
