"""Engines: each hands shard numbers to workers, and yields the summaries in the order in which they come.

An engine is a function of the run's folder, the workers' options and the numbers of the shards. An engine knows nothing
of pictures, parts or resuming.
"""
