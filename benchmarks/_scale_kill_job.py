"""A job of benchmarks/scale_kills.py, in a process of its own: scores a run slowly, and tells each shard that is done.

    python -c "import _scale_kill_job; _scale_kill_job.main()" OUT ENGINE ATTEMPT

ENGINE is local, ray, or cluster: Ray on a cluster of two nodes on loopback. For each byte on stdin a cluster loses its
second node by SIGKILL and gets another.
"""

import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import _scale_stub
from handful import scale
from handful.scale.worker import Judge

WORKERS = "HANDFUL_KILLS_WORKERS"  # the folder in which each process that inspects leaves its id


def opening(content: bytes, threads: int, max_pixels: int | None) -> Judge:
    """Judge by `_scale_stub.slow`, and say that this process works."""
    Path(os.environ[WORKERS], str(os.getpid())).touch()
    return _scale_stub.slow(content, threads, max_pixels)


def main() -> None:
    out, engine, attempt = sys.argv[1:]
    scale.plan(out)  # as the command does, which removes temporary files
    options = scale.Options(attempt=attempt, opening=opening)
    if engine == "cluster":
        with_cluster(out, options)
    else:
        score(out, options, engine=engine)


def score(out: str, options: scale.Options, **where: Any) -> None:
    """Score a run with two workers."""
    for summary in scale.score(out, workers=2, options=options, **where):
        print(f"shard {summary.shard}", flush=True)


def with_cluster(out: str, options: scale.Options) -> None:
    """Score a run on two nodes with a processor each, the second of which is replaced when asked."""
    warnings.simplefilter("ignore")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node, changing = added(cluster), threading.Lock()

    def replace(node: Any) -> None:
        while os.read(0, 1):
            with changing:
                cluster.remove_node(node, allow_graceful=False)
                node = added(cluster)

    threading.Thread(target=replace, args=(node,), daemon=True).start()
    score(out, options, engine="ray", address=cluster.address)
    with changing:
        cluster.shutdown()  # type: ignore[no-untyped-call]


def added(cluster: Any) -> Any:
    """A further node; tells the process whose children are the node's actors."""
    node = cluster.add_node(num_cpus=1)
    print(f"node {node.all_processes['raylet'][0].process.pid}", flush=True)
    return node
