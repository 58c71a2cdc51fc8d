"""Any number of threads may use the same object: each picture gets the answer that it gets alone, to the last bit."""

import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from handful import Detector, Inspector
from handful.errors import SettingError
from handful.saved import archive

NETWORK = {"backbone": "test_efficientnet", "weights": "random", "size": 64, "device": "cpu"}
THREADS, ROUNDS = 6, 8


@pytest.fixture(scope="module")
def detectors(_good_pictures):
    """One on each engine; do not change them."""
    return {engine: Detector(engine=engine, **NETWORK).fit(_good_pictures) for engine in ("openvino", "torch")}


@pytest.fixture(scope="module")
def path(detectors, tmp_path_factory):
    path = tmp_path_factory.mktemp("threads") / "part.handful"
    detectors["openvino"].save(path)
    return path


@pytest.fixture(scope="module")
def pictures(picture_factory):
    """Good ones and defects by turns, so that another picture's answer is another verdict."""
    return [picture_factory(20 + number, defect=bool(number % 2)) for number in range(6)]


def answers(ask, inputs, *, threads=THREADS, rounds=ROUNDS):
    """What every thread is told of every input, each thread beginning at another one."""
    begin = threading.Barrier(threads)

    def run(thread):
        begin.wait()
        order = [(thread + step) % len(inputs) for step in range(rounds * len(inputs))]
        return [(number, ask(inputs[number])) for number in order]

    with ThreadPoolExecutor(threads) as pool:
        return [answer for told in pool.map(run, range(threads)) for answer in told]


def described(inspection):
    """All of an answer but the name, which tells pictures of one call apart."""
    heatmap = None if inspection.heatmap is None else inspection.heatmap.tobytes()
    return heatmap, {name: value for name, value in inspection.as_dict().items() if name != "path"}


def assert_as_alone(ask, inputs, **options):
    alone = [ask(one) for one in inputs]
    assert len({str(one) for one in alone}) == len(inputs), "every picture must have an answer of its own"
    wrong = [number for number, told in answers(ask, inputs, **options) if told != alone[number]]
    assert not wrong, f"{len(wrong)} answers of {len(inputs)} pictures were others than alone"


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_an_inspector_answers_every_thread_as_alone(path, pictures, threads):
    inspector = Inspector.load(path, threads=threads)
    assert_as_alone(lambda picture: described(inspector.inspect(picture)[0]), pictures)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_detector_answers_every_thread_as_alone(detectors, pictures, engine):
    assert_as_alone(lambda picture: described(detectors[engine].inspect(picture)[0]), pictures, rounds=3)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_backbone_answers_every_thread_as_alone(detectors, pictures, engine):
    backbone = detectors[engine]._needed.backbone
    images = [torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(n)) for n in range(6)]
    assert_as_alone(lambda image: [level.tobytes() for level in backbone(image).arrays()], images)


def test_streams_side_by_side_answer_as_alone(path, pictures, monkeypatch):
    monkeypatch.setattr("handful.inspector.MANY", 4)
    inspector = Inspector.load(path)
    alone = [described(inspector.inspect(picture)[0]) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: [described(one) for one in inspector.stream(pictures * 3)], range(4)))
    assert told == [alone * 3] * 4


def test_threads_that_meet_share_one_further_graph(path, pictures, monkeypatch):
    inspector = Inspector.load(path)
    made, compile_ = [], type(inspector._forward)._compile
    monkeypatch.setattr(type(inspector._forward), "_compile", lambda *given: made.append(given) or compile_(*given))
    inspector.inspect(pictures[0])
    assert not made  # a single thread needs none
    answers(lambda picture: inspector.inspect(picture), pictures)
    assert len(made) <= 1
    inspector.workers()
    assert len(made) == 1


def test_workers_share_the_graph_and_answer_as_the_inspector(path, pictures):
    inspector = Inspector.load(path)
    workers = inspector.workers(3)
    assert len(workers) == len({id(worker) for worker in workers}) == 3
    assert len({id(worker._forward) for worker in workers}) == len({id(worker._evidence) for worker in workers}) == 1
    alone = [described(inspector.inspect(picture)[0]) for picture in pictures]
    with ThreadPoolExecutor(3) as pool:
        told = list(pool.map(lambda worker: [described(worker.inspect(one)[0]) for one in pictures], workers))
    assert told == [alone] * 3
    assert len(inspector.workers()) >= 1


def test_workers_of_a_detector_in_torch_answer_too(detectors, pictures):
    inspector = detectors["torch"].inspector
    (worker,) = inspector.workers()
    assert described(worker.inspect(pictures[1])[0]) == described(inspector.inspect(pictures[1])[0])


def test_of_many_threads_only_as_many_inspect_at_once_as_are_quick(path, pictures, monkeypatch):
    monkeypatch.setattr("handful.inspector.PICTURES_PER_CORE", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    inspector, inside, most = Inspector.load(path), [], []
    inspected = Inspector._inspected

    def counted(self, picture):
        inside.append(picture)
        most.append(len(inside))
        try:
            return inspected(self, picture)
        finally:
            inside.remove(picture)

    monkeypatch.setattr(Inspector, "_inspected", counted)
    answers(lambda picture: inspector.inspect(picture), pictures, rounds=2)
    assert max(most) == 2


@pytest.mark.parametrize(("name", "count"), [("threads", 0), ("threads", -1), ("count", 0)])
def test_less_than_one_is_refused(path, name, count):
    with pytest.raises(SettingError, match=f"^`{name}` must be at least 1, got {count}; leave it out"):
        Inspector.load(path, threads=count) if name == "threads" else Inspector.load(path).workers(count)


def test_fits_and_saves_side_by_side_make_the_inspectors_that_they_make_alone(_good_pictures, tmp_path):
    def made(name, method):
        Detector(method, engine="openvino", **NETWORK).fit(_good_pictures).save(tmp_path / name)
        return archive.read(tmp_path / name)

    methods = ["handful", "patchcore"]
    alone = [made(f"alone-{method}", method) for method in methods]
    with ThreadPoolExecutor(4) as pool:
        beside = list(pool.map(made, "abcd", methods * 2))
    for (manifest, calibration, parts), (own, own_calibration, own_parts) in zip(beside, alone * 2, strict=True):
        assert (manifest["digest"], calibration) == (own["digest"], own_calibration)
        assert parts == own_parts, [name for name in parts if parts[name] != own_parts.get(name)]


def test_corrections_from_several_threads_are_made_one_after_the_other(detectors, tmp_path):
    detectors["torch"].save(tmp_path / "part.handful")
    detector = Detector.load(tmp_path / "part.handful", device="cpu")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(detector.set_rate, np.linspace(0.01, 0.3, 16)))
    assert [one.revision.number for one in sorted(made, key=lambda one: one.revision.number)] == list(range(1, 17))
    chain = dict(one.digests for one in made)
    assert len(chain) == 16 and len(detector.revisions) == 16 and detector.digest in chain.values()


def process():
    """Whatever a call could change for everybody else in the process."""
    return {
        "warnings": list(warnings.filters),
        "pillow": Image.MAX_IMAGE_PIXELS,
        "torch threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch type": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch numbers": torch.random.get_rng_state().tolist(),
        "numpy numbers": str(np.random.get_state()),
        "numpy errors": np.geterr(),
        "environment": dict(os.environ),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "collector": gc.get_threshold(),
        "folder": Path.cwd(),
    }


def test_no_call_changes_the_process(_good_pictures, picture_factory, tmp_path):
    before = process()
    detector = Detector(engine="openvino", **NETWORK).fit(_good_pictures)
    detector.inspect(picture_factory(30, defect=True))
    detector.save(tmp_path / "part.handful")
    detector.teach_good(picture_factory(31))
    detector.export(tmp_path / "graph")
    inspector = Inspector.load(tmp_path / "part.handful")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(inspector.inspect, [picture_factory(seed) for seed in range(32, 44)]))
    assert {name: value for name, value in process().items() if value != before[name]} == {}


def test_evidence_and_gate_say_the_same_with_any_number_of_numpy_s_threads():
    code = """
import hashlib

import numpy as np

from handful.inspection import gate
from handful.inspection.evidence import Evidence, Region
from handful.ops.frames import whole

random, found = np.random.default_rng(0), []
for side, coarse in ((40, 20), (37, 19), (28, 14)):
    *learnt, asked = [
        [random.normal(size=(n, n, depth)).astype(np.float32) for n, depth in ((side, 40), (coarse, 112))]
        for _ in range(3)
    ]
    part = whole((100, 100))
    evidence = Evidence(learnt, ["0", "1"], [part] * 2)
    regions = [Region((0, 0, 9, 9), 9, 1.0, (9 * number, 7 * number)) for number in range(9)]
    found.append(evidence.explain(regions, asked, (100, 100), part))
blocks = random.random((2000, 3000), dtype=np.float32)  # the product of smaller blocks is not split over threads
found.append(gate.cell_means(blocks, (8, 3000)).tolist())
print(hashlib.sha256(repr(found).encode()).hexdigest())
"""
    answers = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"OPENBLAS_NUM_THREADS": str(threads)},
            capture_output=True, text=True, check=True,
        ).stdout
        for threads in (1, 2, 3)
    ]  # fmt: skip
    assert len(set(answers)) == 1, answers
