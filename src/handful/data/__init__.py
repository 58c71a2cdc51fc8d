"""The reading of pictures, folders of pictures and labelled data sets; the only code that reads pictures."""
