"""A job of benchmarks/scale_kills.py, in a process of its own: scores a run slowly, and tells each shard that is done.

    python -c "import sys, _scale_kill_job; sys.exit(_scale_kill_job.main())" OUT ENGINE ATTEMPT

ENGINE is local, ray, the address of a cluster, or cluster: Ray on a cluster of two nodes on loopback. For each byte on
stdin a cluster loses its second node by SIGKILL and gets another.
"""

import os
import select
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import _scale_stub
from handful import scale
from handful.scale.scoring import ENGINES
from handful.scale.worker import Judge

PROGRAM = "import sys, _scale_kill_job; sys.exit(_scale_kill_job.main())"
WORKERS = "HANDFUL_KILLS_WORKERS"  # the folder in which each process that inspects leaves its id


def opening(content: bytes, threads: int, max_pixels: int | None) -> Judge:
    """Judge by `_scale_stub.slow`, and say that this process works."""
    Path(os.environ[WORKERS], str(os.getpid())).touch()
    return _scale_stub.slow(content, threads, max_pixels)


def main() -> int:
    out, engine, attempt = sys.argv[1:]
    if engine == "cluster":
        return with_cluster(out, attempt)
    scale.plan(out)  # as the command does, which removes temporary files
    where: dict[str, Any] = {"engine": engine} if engine in ENGINES else {"engine": "ray", "address": engine}
    options = scale.Options(attempt=attempt, opening=opening)
    for summary in scale.score(out, workers=2, options=options, **where):
        print(f"shard {summary.shard}", flush=True)
    return 0


def with_cluster(out: str, attempt: str) -> int:
    """Score a run, by a process of its own, on two nodes of a processor each; the second is replaced when asked."""
    warnings.simplefilter("ignore")
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = added(cluster)
    driver = subprocess.Popen([sys.executable, "-c", PROGRAM, out, cluster.address, attempt])
    while driver.poll() is None:
        if select.select([0], [], [], 0.02)[0] and os.read(0, 1):
            cluster.remove_node(node, allow_graceful=False)
            node = added(cluster)  # in the main thread: Ray sets handlers of signals
    cluster.shutdown()
    return driver.returncode


def added(cluster: Any) -> Any:
    """A further node; tells the process whose children are the node's actors."""
    node = cluster.add_node(num_cpus=1)
    print(f"node {node.all_processes['raylet'][0].process.pid}", flush=True)
    return node
