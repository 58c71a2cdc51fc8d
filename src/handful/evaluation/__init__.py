"""Evaluation: benchmarks of methods on labelled data sets, to compare methods, never to decide about a part."""
