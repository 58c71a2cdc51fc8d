"""The engine `ray` gives the bytes of the engine `local`, and survives what ends its actors, nodes and driver."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from handful import scale

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds Ray's processes in /proc")

# Scores a run in a cluster of two nodes on loopback: one node is killed and another added, then an actor is killed.
CLUSTER = """
import logging, os, signal, sys, time, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
import _scale_stub
from handful import scale
from handful.scale.engines.ray import QUIET

def is_actor(process):
    try:
        return b"ray::MapWorker" in (process / "cmdline").read_bytes() and is_ours(process.name)
    except OSError:  # it has ended
        return False

def is_ours(pid):
    while pid not in ("0", "1"):
        if pid == str(os.getpid()):
            return True
        pid = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[1]
    return False

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
second = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
options = scale.Options(opening=getattr(_scale_stub, sys.argv[2]), seconds=3.0)
done = 0

def settings():
    context = ray.data.DataContext.get_current()
    names = ("enable_progress_bars", "print_on_execution_start", "max_consecutive_actor_init_deaths")
    variables = {name: os.environ.get(name) for name in QUIET}
    levels = [logging.getLogger(name).level for name in ("ray", "ray.data")]
    return variables, levels, [getattr(context, name) for name in names]

before = settings()
for summary in scale.score(sys.argv[1], engine="ray", address=cluster.address, workers=2, options=options):
    done += 1
    if sys.argv[2] == "slow" and done == 2:
        cluster.remove_node(second, allow_graceful=False)
        cluster.add_node(num_cpus=1)
    if sys.argv[2] == "slow" and done == 6:
        actors = [p for p in Path("/proc").glob("[0-9]*") if is_actor(p)]
        print("actors", len(actors), flush=True)
        os.kill(int(actors[0].name), signal.SIGKILL)
print("summaries", done, flush=True)
assert settings() == before, (settings(), before)
cluster.shutdown()
"""


def environment():
    path = os.pathsep.join([str(BENCHMARKS), *sys.path])
    return {**os.environ, "PYTHONPATH": path}


def run(*command, timeout=400):
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, env=environment(), timeout=timeout
    )


@pytest.fixture
def stub_run(tmp_path, saved_with_graph):
    """Plan a run of tiny pictures for the stub, under a name; shards of 10."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(200):
        (pictures / f"{number:03}.png").write_bytes(str(number).encode())

    def plan(name):
        out = str(tmp_path / name)
        scale.plan(out, pictures=[str(pictures)], inspector=str(saved_with_graph), shard=10)
        return out

    return plan


def scored_here(out, opening):
    worker = scale.Worker(out, scale.Options(opening=opening))
    for shard in scale.todo(out):
        assert worker(shard).failed is None


def test_parts_are_those_of_the_local_engine(scored, archive_folder, saved_with_graph, tmp_path, part_bytes):
    (archive_folder / "empty.png").write_bytes(b"")
    local, _ = scored()
    out = tmp_path / "ray"
    command = ("-m", "handful", "score", saved_with_graph, "--pictures", archive_folder, "--out", out)
    done = run(*command, "--shard", 5, "--engine", "ray", "--workers", 2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert part_bytes(out) == part_bytes(local)
    assert done.stdout.startswith("24 pictures in 5 shards: ")
    said = [line for line in done.stderr.splitlines() if line.strip()]
    assert all(line.startswith("handful: ") for line in said), done.stderr  # and nothing of Ray's


def test_a_lost_node_and_a_killed_actor_lose_nothing(stub_run, stubs, tmp_path, part_bytes):
    whole, out = stub_run("whole"), stub_run("out")
    scored_here(whole, stubs.stub)
    (tmp_path / "cluster.py").write_text(CLUSTER)
    done = run(tmp_path / "cluster.py", out, "slow")
    assert done.returncode == 0 and "summaries 20" in done.stdout, done.stdout + done.stderr[-3000:]
    assert "actors 2" in done.stdout or "actors 1" in done.stdout
    assert part_bytes(out) == part_bytes(whole)


def test_a_picture_that_ends_its_actor_gets_a_row(tmp_path, archive_folder, saved_with_graph):
    for name in ("a-segfault.png", "b-forever.png"):
        (archive_folder / name).write_bytes((archive_folder / "day0" / "000.png").read_bytes())
    out = str(tmp_path / "out")
    scale.plan(out, pictures=[str(archive_folder)], inspector=str(saved_with_graph), shard=13)
    (tmp_path / "cluster.py").write_text(CLUSTER)
    done = run(tmp_path / "cluster.py", out, "poisoned")
    assert "summaries 2" in done.stdout, done.stdout + done.stderr[-3000:]
    rows = scale.table(out).to_pylist()
    kinds = {Path(row["path"]).name: row["error"] for row in rows if row["error"]}
    assert kinds == {"a-segfault.png": "CRASH", "b-forever.png": "TIMEOUT"}
    assert len(rows) == 25


def test_a_killed_driver_loses_no_finished_shard(stub_run, stubs, tmp_path, part_bytes):
    whole, out = stub_run("whole"), stub_run("out")
    scored_here(whole, stubs.stub)
    script = tmp_path / "job.py"
    script.write_text(
        "import sys, _scale_stub\nfrom handful import scale\n"
        "options = scale.Options(opening=_scale_stub.slow)\n"
        "for one in scale.score(sys.argv[1], engine='ray', workers=1, options=options):\n"
        "    print(one.shard, flush=True)\n"
    )
    job = subprocess.Popen(
        [sys.executable, script, out],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )
    assert job.stdout.readline()
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate()
    done = len(part_bytes(out))
    assert 0 < done < 20
    time.sleep(1)
    scored_here(out, stubs.stub)
    assert part_bytes(out) == part_bytes(whole)


def test_a_cluster_that_is_not_there_is_refused(stub_run):
    done = run("-m", "handful", "score", "--out", stub_run("out"), "--engine", "ray", "--address", "127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("handful: Ray must start or be reached at 127.0.0.1:1, got: ")
