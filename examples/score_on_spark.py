"""Score a planned run on Spark: spark-submit score_on_spark.py OUT.

OUT is the folder of a run that `handful.scale.plan` has planned, which every machine of the cluster reaches under the
same address; every machine needs `handful[scale]`. Only the numbers of shards and their summaries travel through Spark.
"""

import sys
from collections.abc import Iterable

from pyspark.sql import SparkSession

from handful import scale


def main(out: str) -> None:
    """Score the shards that have no part, then write summary.json and failures.parquet."""
    options = scale.Options()  # names this attempt, so that a shard that ends its process twice is scored carefully

    def scored(shards: Iterable[int]) -> Iterable[dict[str, object]]:
        """The summaries of a partition: one worker keeps its inspector; by `map`, each shard would load one."""
        worker = scale.Worker(out, options)
        return (worker(shard).as_dict() for shard in shards)

    spark = SparkSession.builder.appName("handful score").getOrCreate()
    shards = scale.todo(out)
    # Some partitions for each processor: a partition that is done early makes room for another, and a partition that
    # Spark gives out again after a failure passes over the shards that are done.
    partitions = max(1, min(len(shards), 4 * spark.sparkContext.defaultParallelism))
    summaries = spark.sparkContext.parallelize(shards, partitions).mapPartitions(scored).collect()
    spark.stop()
    for summary in summaries:
        if summary["failed"]:
            print(f"shard {summary['shard']}: {summary['failed']}", file=sys.stderr)
    list(scale.score(out))  # what Spark has left, in processes of this machine: usually nothing


if __name__ == "__main__":
    main(sys.argv[1])
