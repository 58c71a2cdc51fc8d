"""Fitting: from reference pictures to features, a fitted method and a calibrated threshold."""
