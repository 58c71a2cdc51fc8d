"""Inspectors in other processes: after a fork, pickled, copied, and as worker pools and task queues carry them."""

import copy
import json
import os
import pickle
import subprocess
import sys
import textwrap
import time

import pytest
from PIL import Image

from handful import Detector, Inspector
from handful.errors import InspectorError, OutputError

NETWORK = {"backbone": "test_efficientnet", "weights": "random", "size": 64, "device": "cpu"}
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture(scope="module")
def folder(_good_pictures, picture_factory, tmp_path_factory):
    """A saved inspector, four pictures and their scores; do not change it."""
    folder = tmp_path_factory.mktemp("processes")
    Detector(engine="openvino", **NETWORK).fit(_good_pictures).save(folder / "part.handful")
    for number in range(4):
        Image.fromarray(picture_factory(50 + number, defect=bool(number % 2))).save(folder / f"{number}.png")
    inspector = Inspector.load(folder / "part.handful")
    scores = [inspector.inspect(folder / f"{number}.png")[0].raw_score for number in range(4)]
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


PRELUDE = """
    import json, os, sys, threading, time
    from pathlib import Path
    from handful import Detector, Inspector
    from handful.errors import ProcessError

    folder = Path(sys.argv[1])
    paths = [folder / f"{number}.png" for number in range(4)]
    expected = json.loads((folder / "scores.json").read_text())

    def scores(inspector):
        return [inspector.inspect(path)[0].raw_score for path in paths]

    def forked(job, *, patience=60):
        # Run a job in a forked process; its exit code, None where it hangs. The process ends in the ordinary way.
        pid = os.fork()
        if not pid:
            sys.exit(job())
        until = time.monotonic() + patience
        while time.monotonic() < until:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        return None
"""


def run(folder, script, *arguments, **environment):
    """Run a script in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(script), str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@forks
def test_after_a_fork_an_inspector_that_was_used_answers_as_before(folder):
    found = run(
        folder,
        """
        inspector = Inspector.load(folder / "part.handful")
        assert scores(inspector) == expected
        workers = inspector.workers(2)
        assert [scores(worker) for worker in workers] == [expected] * 2

        def in_threads():
            told = []
            threads = [threading.Thread(target=lambda: told.append(scores(inspector))) for _ in range(4)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            return told != [expected] * 4

        def streamed():
            return [one.raw_score for one in inspector.stream(paths * 15)] != expected * 15

        def released():
            global inspector, workers
            inspector = workers = None

        jobs = [
            lambda: scores(inspector) != expected,
            lambda: scores(workers[0]) != expected,
            in_threads,
            streamed,
            lambda: forked(lambda: scores(inspector) != expected),
            released,
            lambda: None,
            lambda: 3,
        ]
        print(*(forked(job) for job in jobs))
        assert scores(inspector) == expected
        """,
    )
    assert found == ["0"] * 7 + ["3"]


@forks
def test_a_fork_waits_for_the_computations_of_other_threads(folder):
    found = run(
        folder,
        """
        inspector = Inspector.load(folder / "part.handful")
        going = True

        def busy():
            while going:
                scores(inspector)

        threads = [threading.Thread(target=busy) for _ in range(3)]
        [thread.start() for thread in threads]
        begin = time.monotonic()
        print(*(forked(lambda: scores(inspector) != expected) for _ in range(8)))
        print(time.monotonic() - begin < 100)  # threads that never pause do not keep a fork waiting
        going = False
        [thread.join() for thread in threads]
        """,
    )
    assert found == [*["0"] * 8, "True"]


@forks
def test_compiling_after_a_fork_is_refused_with_a_sentence(folder):
    found = run(
        folder,
        """
        inspector = Inspector.load(folder / "part.handful")
        content = (folder / "part.handful").read_bytes()

        def refused(load):
            def job():
                try:
                    load()
                except ProcessError as error:
                    return 0 if "spawn" in str(error) else 4
                return 5
            return job

        print(forked(refused(lambda: Inspector.load(folder / "part.handful"))))
        print(forked(refused(lambda: Inspector.load(content))))
        print(forked(refused(lambda: Detector.load(folder / "part.handful"))))
        """,
    )
    assert found == ["0"] * 3


@forks
def test_a_process_that_was_forked_before_may_compile(folder):
    found = run(folder, 'print(forked(lambda: scores(Inspector.load(folder / "part.handful")) != expected))')
    assert found == ["0"]


@forks
def test_torch_after_a_fork_is_refused_unless_it_has_one_thread(folder):
    found = run(
        folder,
        """
        import torch
        torch.set_num_threads(2)
        detector = Detector.load(folder / "part.handful", engine="torch", device="cpu")
        detector.inspect(paths[0])

        def refused():
            try:
                scores(detector)
            except ProcessError as error:
                return 0 if "spawn" in str(error) else 4
            return 5

        def one_thread():
            torch.set_num_threads(1)
            return len(scores(detector)) != 4

        print(forked(refused), forked(one_thread))
        """,
    )
    assert found == ["0", "0"]


@pytest.mark.parametrize("again", [lambda it: pickle.loads(pickle.dumps(it)), copy.copy, copy.deepcopy])
def test_an_inspector_is_pickled_and_copied_as_its_saved_bytes(folder, again):
    inspector = Inspector.load(folder / "part.handful")
    other = again(inspector)
    assert other is not inspector and other.digest == inspector.digest
    assert [other.inspect(folder / f"{n}.png")[0].raw_score for n in range(4)] == json.loads(
        (folder / "scores.json").read_text()
    )


def test_a_pickled_inspector_holds_its_file(folder):
    assert (folder / "part.handful").read_bytes() in pickle.dumps(Inspector.load(folder / "part.handful"))


def test_an_inspector_that_was_pickled_does_not_need_its_file(folder, tmp_path):
    path = tmp_path / "part.handful"
    path.write_bytes((folder / "part.handful").read_bytes())
    pickled = pickle.dumps(Inspector.load(path))
    path.unlink()
    assert pickle.loads(pickled).inspect(folder / "1.png")[0].verdict == "DEFECT"


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_detector_is_pickled_and_copied_whole(_good_pictures, picture_factory, engine):
    detector = Detector(engine=engine, **NETWORK).fit(_good_pictures)
    detector.set_rate(0.2)
    picture = picture_factory(60, defect=True)
    before = detector.inspect(picture)[0]
    for other in (pickle.loads(pickle.dumps(detector)), copy.deepcopy(detector)):
        assert other.digest == detector.digest and other.inspect(picture)[0].raw_score == before.raw_score
        other.set_rate(0.1)
        assert other.digest != detector.digest  # a copy of its own
    inspector = pickle.loads(pickle.dumps(detector.inspector))
    assert inspector.inspect(picture)[0].raw_score == before.raw_score


def test_a_detector_is_pickled_before_it_is_fitted(_good_pictures):
    detector = Detector("patchcore", settings={"coreset_ratio": 0.5}, engine="openvino", **NETWORK, gate="blur")
    again = pickle.loads(pickle.dumps(detector))
    assert again.gate == ("blur",) and again.method.settings == detector.method.settings
    assert again.fit(_good_pictures).digest == detector.fit(_good_pictures).digest
    shared = Detector(backbone=detector._needed.backbone)
    again = pickle.loads(pickle.dumps(shared))
    assert again.fit(_good_pictures).digest == shared.fit(_good_pictures).digest


def test_bytes_are_loaded_as_the_file(folder):
    content = (folder / "part.handful").read_bytes()
    assert Inspector.load(content).digest == Detector.load(content, device="cpu").digest
    with pytest.raises(InspectorError, match=r"^An inspector in memory must be"):
        Inspector.load(content[: len(content) // 2])


def test_every_answer_names_its_inspector(folder):
    inspector = Inspector.load(folder / "part.handful")
    answers = inspector.inspect([folder / "0.png", folder / "missing.png"])
    assert [one.as_dict()["inspector"] for one in answers] == [inspector.digest] * 2
    detector = Detector.load(folder / "part.handful", device="cpu")
    assert detector.inspect(folder / "0.png")[0].inspector == inspector.digest
    made = detector.set_rate(0.2)
    assert made.digests == (inspector.digest, detector.digest) and detector.digest != inspector.digest


def test_the_later_of_two_corrections_does_not_win_silently(folder, tmp_path):
    path = tmp_path / "part.handful"
    path.write_bytes((folder / "part.handful").read_bytes())
    one, other = (Detector.load(path, device="cpu") for _ in range(2))
    one.set_rate(0.2)
    one.save(path)
    other.set_rate(0.3)
    with pytest.raises(OutputError, match="saved meanwhile"):
        other.save(path)
    assert Inspector.load(path).digest == one.digest
    other.save(tmp_path / "another.handful")
    one.set_rate(0.1)
    one.save(path)  # its own file, as it left it


# --- pools and queues, as their users use them


def test_joblib_carries_an_inspector(folder):
    found = run(
        folder,
        """
        from joblib import Parallel, delayed
        inspector = Inspector.load(folder / "part.handful")
        ask = delayed(lambda inspector, path: inspector.inspect(path)[0].raw_score)
        print(Parallel(n_jobs=2)(ask(inspector, path) for path in paths) == expected)
        """,
    )
    assert found == ["True"]


def test_a_process_pool_carries_an_inspector(folder):
    script = folder / "pool.py"
    script.write_text(
        textwrap.dedent(PRELUDE)
        + textwrap.dedent(
            """
            from concurrent.futures import ProcessPoolExecutor
            from multiprocessing import get_context

            def ask(given):
                inspector, path = given
                return inspector.inspect(path)[0].raw_score

            if __name__ == "__main__":
                inspector = Inspector.load(folder / "part.handful")
                with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
                    print(list(pool.map(ask, [(inspector, path) for path in paths])) == expected)
            """
        )
    )
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=240)
    assert done.stdout.split() == ["True"], done.stderr


@pytest.mark.parametrize("start", ["spawn", pytest.param("fork", marks=forks)])
def test_workers_of_a_data_loader_carry_an_inspector(folder, start):
    script = folder / f"loader_{start}.py"
    script.write_text(
        textwrap.dedent(PRELUDE)
        + textwrap.dedent(
            """
            from torch.utils.data import DataLoader, Dataset

            class Scores(Dataset):
                def __init__(self, inspector, paths):
                    self.inspector, self.paths = inspector, paths

                def __len__(self):
                    return len(self.paths)

                def __getitem__(self, number):
                    return self.inspector.inspect(self.paths[number])[0].raw_score

            if __name__ == "__main__":
                inspector = Inspector.load(folder / "part.handful")
                inspector.inspect(paths[0])
                loader = DataLoader(Scores(inspector, paths), num_workers=2, multiprocessing_context=sys.argv[2])
                print([float(score) for score in loader] == expected)
            """
        )
    )
    command = [sys.executable, str(script), str(folder), start]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.stdout.split() == ["True"], done.stderr


@forks
def test_celery_workers_that_are_forked_answer(folder, tmp_path):
    for name in ("in", "done", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "inspection.py").write_text(
        textwrap.dedent(
            f"""
            from celery import Celery
            from handful import Inspector

            app = Celery(broker="filesystem://", backend="file://{tmp_path}/results")
            app.conf.broker_transport_options = {{
                "data_folder_in": "{tmp_path}/in", "data_folder_out": "{tmp_path}/in",
                "processed_folder": "{tmp_path}/done", "control_folder": "{tmp_path}/control",
            }}
            inspector = Inspector.load("{folder}/part.handful")
            inspector.inspect("{folder}/0.png")  # before the workers are forked

            @app.task
            def score(path):
                return inspector.inspect(path)[0].raw_score
            """
        )
    )
    log = (tmp_path / "log").open("w+")
    command = ["-m", "celery", "-A", "inspection", "worker", "--pool", "prefork", "--concurrency", "2"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO"]
    worker = subprocess.Popen([sys.executable, *command, *quiet], cwd=tmp_path, stdout=log, stderr=log)
    try:
        script = """
            sys.path.insert(0, sys.argv[2])
            from inspection import score
            asked = [score.delay(str(path)) for path in paths]
            print([one.get(timeout=90) for one in asked] == expected)
        """
        assert run(folder, script, str(tmp_path)) == ["True"], (tmp_path / "log").read_text()
    finally:
        worker.terminate()
        begin = time.monotonic()
        worker.wait(60)
        log.close()
    assert time.monotonic() - begin < 60 and worker.returncode == 0, (tmp_path / "log").read_text()


@forks
def test_a_computation_that_has_not_begun_waits_for_a_fork_that_waits(folder):
    found = run(
        folder,
        """
        from handful.backbones.processes import undisturbed

        order, first, end = [], threading.Event(), threading.Event()

        def long():
            with undisturbed():
                first.set()
                end.wait(60)
                order.append("first ended")

        def late():
            with undisturbed():
                order.append("second began")

        def fork():
            pid = os.fork()
            if not pid:
                os._exit(0)
            order.append("forked")
            os.waitpid(pid, 0)

        threads = [threading.Thread(target=job) for job in (long, fork, late)]
        for thread in threads:
            thread.start()
            first.wait(60)
            time.sleep(0.5)
        order.append("waited")
        end.set()
        [thread.join(60) for thread in threads]
        print(*(word.replace(" ", "-") for word in order))
        """,
    )
    assert found[:2] == ["waited", "first-ended"] and sorted(found[2:]) == ["forked", "second-began"]
