"""Engines: each hands shard numbers to workers, and yields the summaries in the order in which they come.

An engine is a function `(job, shards) -> Iterator[ShardSummary]`. It knows nothing of pictures, parts or resuming.
"""
