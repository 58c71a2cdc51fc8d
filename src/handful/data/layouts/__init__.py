"""The readers of labelled data sets, a file for each layout."""
