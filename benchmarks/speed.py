"""How far an inspection is from its limit, the backbone's own pass: writes speed/ and speed.md beside itself.

    python3 scripts/bench speed --data DIR

DIR/CATEGORY is a category in any layout that `handful data check` knows, of a part that does not turn. Contestants take
turns: a round runs each once untimed, as the picture before, and once timed, on the next picture. Given are medians
over the rounds in multiples of the median of the bare graph: the inspector's own compiled graph on an input that is
ready, nothing before and nothing after it. Each part (--parts) keeps its results in a file of its own with the commit
that it was measured at, and the page is made of those that are there. The part gpu needs CUDA.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # as the command line sets it, before numpy is imported

import numpy as np
import torch
from torch import Tensor

import _peer
import _speed_page
from _speed_pictures import EACH, chosen, copies, decoded, jpegs, judged
from _turns import Rows, Run, each, in_multiples, in_turn
from handful import backbones
from handful.backbones.base import Backbone, Precision
from handful.backbones.openvino_engine import OpenVINOBackbone
from handful.data.images import read_picture
from handful.data.shots import draw
from handful.detector import Detector
from handful.errors import SettingError
from handful.evaluation.environment import describe
from handful.files import replacing
from handful.graphs.names import CONSTANTS_ENTRY, GRAPH_ENTRY
from handful.inspector import Inspector
from handful.ops.coreset import greedy_coreset
from handful.types import Category, Features

BARE = _speed_page.BARE
INSPECTORS: dict[str, tuple[str, dict[str, Any]]] = {
    "handful": ("handful", {"turn": "never"}),
    "handful, turned copies": ("handful", {"turn": "always"}),
    "patchcore": ("patchcore", {}),
}
FIT = ": fit"
DEPTH = 152  # channels of the default backbone's levels together
OUT = Path(__file__).with_suffix("")


def main() -> None:
    options = parsed()
    keep_to(options.threads)
    folders = {str(options.data): "DIR", str(options.out): "OUT"}
    command = " ".join(["python3 scripts/bench speed", *(folders.get(word, word) for word in sys.argv[1:])])
    for part in options.entries:
        print(part, file=sys.stderr, flush=True)
        rows = PARTS[part](options)
        device = "cuda" if part == "gpu" else "cpu"
        record = describe(command=command, device=device, facts={"category": options.category, "rows": rows})
        with replacing(options.out / f"{part}.json", make_folder=True) as file:
            file.write(json.dumps(record, indent=1).encode())
    records = {part: options.out / f"{part}.json" for part in PARTS}
    page = _speed_page.page({part: json.loads(file.read_text()) for part, file in records.items() if file.exists()})
    options.out.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [part for part in PARTS if part != "gpu" or torch.cuda.is_available()]
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", default="mvtec_ad/pill", help="default: %(default)s")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=default, help="default: all that run here")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--sizes", type=int, nargs="+", default=[320, 512])
    parser.add_argument("--rounds", type=int, default=30, help="of inspections; default: %(default)s")
    parser.add_argument("--slow-rounds", type=int, default=5, help="of all other parts; default: %(default)s")
    parser.add_argument("--threads", type=int, help="cores to keep to; default: all")
    parser.add_argument("--folder", type=int, default=200, help="pictures of the folder; default: %(default)s")
    parser.add_argument("--peak", type=int, nargs="+", default=[100, 1000], help="memory: of so many pictures")
    parser.add_argument("--rows", type=int, default=20_000, help="coreset: chosen from; default: %(default)s")
    parser.add_argument("--alone", action="store_true", help="without anomalib")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


def keep_to(threads: int | None) -> None:
    """Let this process, and those that it starts, have so many cores: torch and OpenVINO take as many threads."""
    if threads is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("--threads needs a system that lets a process choose its cores; leave it out.")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)


def bare(backbone: OpenVINOBackbone) -> Run:
    """The backbone's compiled graph by itself."""
    request = backbone._compiled.create_infer_request()
    image = np.random.default_rng(0).random((1, 3, *backbone.spec.size), dtype=np.float32)
    request.infer({0: image})  # which keeps it as its input
    return lambda number: request.infer(share_outputs=True)


def inspection(options: argparse.Namespace) -> Rows:
    """Inspections of pictures in memory and from a JPEG, and the peer's."""
    category, rows = chosen(options), []
    with tempfile.TemporaryDirectory() as scratch:
        pictures = jpegs(category, Path(scratch))
        for size, shots, references in draws(options, category):
            contestants = inspections(references, pictures, size)
            if not options.alone:
                contestants |= peers(references, pictures, size)
            rows += in_multiples(in_turn(contestants, options.rounds), BARE, size=size, shots=shots)
    return rows


def draws(options: argparse.Namespace, category: Category) -> Iterator[tuple[int, int, Sequence[str]]]:
    """Every size and number of references asked for, and the references."""
    for size in options.sizes:
        for shots in options.shots:
            yield size, shots, draw(category.train, shots=shots, seed=0)


def inspections(references: Sequence[str], pictures: Sequence[Path], size: int) -> dict[str, Run]:
    """The bare graph, a JPEG's decoding, and every inspector on pictures of both verdicts."""
    at_precisions = {"": fast(size)} | at_bf16(size)
    found = {f"{BARE}{at}": bare(backbone) for at, backbone in at_precisions.items()}
    found["a JPEG decoded by Pillow"] = each(decoded, pictures)
    for (name, (method, settings)), (at, backbone) in product(INSPECTORS.items(), at_precisions.items()):
        detector = Detector(method, settings=settings, backbone=backbone).fit(references)
        inspector = loaded(detector)
        for verdict, paths in judged(inspector, pictures).items():
            ready = [read_picture(path, detail=size) for path in paths]
            found[f"{name}{at}: {verdict}"] = each(inspector, ready)
            if verdict == "OK" and not at:
                found[f"{name}: {verdict}, from a JPEG"] = each(inspector.inspect, paths)
                found[f"{name}: {verdict}, in torch"] = each(detector, ready)
    return found


def loaded(detector: Detector) -> Inspector:
    """What inspects once the detector is saved."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "part.handful")
        detector.save(file)
        return Inspector.load(file)


def peers(references: Sequence[str], pictures: Sequence[Path], size: int) -> dict[str, Run]:
    """The peer on the same pictures in memory, from pixels to score and map."""
    model = _peer.patchcore()
    _peer.teach(model, (_peer.model_input(decoded(path), size) for path in references))
    whole = _peer.exported(model, size)
    bank, model.memory_bank = model.memory_bank, model.memory_bank[::10]
    tenth = _peer.exported(model, size)
    model.memory_bank = bank
    ready = [decoded(path) for path in pictures[:EACH]]

    def brought(run: Callable[[Tensor], object]) -> Run:
        return each(torch.inference_mode()(lambda pixels: run(_peer.model_input(pixels, size))), ready)

    named = {"torch": model, "OpenVINO": whole, "OpenVINO, every tenth patch": tenth}
    return {f"{_peer.PEER}, {name}": brought(run) for name, run in named.items()}


def gpu(options: argparse.Namespace) -> Rows:
    """Inspections and fits on CUDA, in multiples of torch's pass of the backbone there; here seconds are kept too."""
    category, rows = chosen(options), []
    with tempfile.TemporaryDirectory() as scratch:
        pictures = jpegs(category, Path(scratch))
        for size, shots, references in draws(options, category):
            contestants = on_gpu(references, pictures, size, peer=not options.alone)
            fits = {name: run for name, run in contestants.items() if name.endswith(FIT)}
            quick = {name: run for name, run in contestants.items() if name not in fits}
            seconds = in_turn(quick, options.rounds) | in_turn(fits, options.slow_rounds, warm=False)
            for row in in_multiples(seconds, _speed_page.BARE_ON_GPU, size=size, shots=shots):
                rows.append({**row, "seconds": statistics.median(seconds[row["name"]])})
    return rows


def on_gpu(references: Sequence[str], pictures: Sequence[Path], size: int, *, peer: bool) -> dict[str, Run]:
    """The backbone by itself, every inspector on pictures of both verdicts and its fit, and the peer's model."""
    backbone = backbones.create(size=(size, size), engine="torch", device="cuda")
    image = torch.rand(1, 3, size, size, device="cuda")

    def passed(number: int) -> None:
        backbone(image)
        torch.cuda.synchronize()

    found: dict[str, Run] = {_speed_page.BARE_ON_GPU: passed}
    for name, (method, settings) in INSPECTORS.items():
        detector = Detector(method, settings=settings, backbone=backbone).fit(references)
        for verdict, paths in judged(detector.inspector, pictures).items():
            ready = [read_picture(path, detail=size) for path in paths]
            found[f"{name}: {verdict}"] = each(detector, ready)
        found[f"{name}{FIT}"] = each(Detector(method, settings=settings, backbone=backbone).fit, [references])
    if peer:
        model = _peer.patchcore().cuda()
        _peer.teach(model, (_peer.model_input(decoded(path), size).cuda() for path in references))

        @torch.inference_mode()
        def inspected(pixels: Any) -> tuple[Tensor, Tensor]:
            answer = model(_peer.model_input(pixels, size).cuda())
            return answer.pred_score.cpu(), answer.anomaly_map.cpu()

        found[f"{_peer.PEER}, torch"] = each(inspected, [decoded(path) for path in pictures[:EACH]])
    return found


def fit(options: argparse.Namespace) -> Rows:
    """Fitting, in multiples of the bare graph; how often it runs the backbone; and what is saved, in bytes."""
    category, rows = chosen(options), []
    for size in options.sizes:
        backbone = Counted(fast(size))
        for shots in options.shots:
            references = draw(category.train, shots=shots, seed=0)
            detectors = {name: Detector(m, settings=s, backbone=backbone) for name, (m, s) in INSPECTORS.items()}
            fits = {name: each(detector.fit, [references]) for name, detector in detectors.items()}
            seconds = in_turn({BARE: bare(backbone.counted), **fits}, options.slow_rounds, warm=False)
            for row in in_multiples(seconds, BARE, size=size, shots=shots)[1:]:
                backbone.calls = 0
                detector = detectors[row["name"]].fit(references)
                rows.append({**row, "passes": backbone.calls, **bytes_of(detector)})
    return rows


def bytes_of(detector: Detector) -> dict[str, int]:
    """The size of the saved inspector, and of the backbone in it."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "part.handful")
        detector.save(file)
        parts = detector._needed.backbone.entries
        return {"bytes": file.stat().st_size, "backbone_bytes": sum(len(part) for part in parts.values())}


class Counted:
    """A backbone that counts its passes."""

    def __init__(self, counted: OpenVINOBackbone) -> None:
        self.counted, self.calls = counted, 0
        self.spec, self.entries, self.device = counted.spec, counted.entries, counted.device

    def __call__(self, images: Tensor) -> Features:
        """As the one counted."""
        self.calls += len(images)
        return self.counted(images)


def cold(options: argparse.Namespace) -> Rows:
    """Programs from their start to their end, in multiples of the interpreter's own; here seconds are kept too."""
    category = chosen(options)
    references = draw(category.train, shots=4, seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        file, new = taught(category, Path(scratch), options), str(Path(scratch, "new.handful"))
        programs = {
            "python -c pass": ("-c", "pass"),
            "python -c 'import torch, openvino'": ("-c", "import torch, openvino"),
            "handful --help": ("-m", "handful", "--help"),
            "handful inspect, one picture": ("-m", "handful", "inspect", str(file), category.test[0].path),
            "handful fit, four pictures": ("-m", "handful", "fit", *references, "-o", new),
        }
        contestants = {name: each(lambda words: started(*words), [words]) for name, words in programs.items()}
        seconds = in_turn(contestants, options.slow_rounds, warm=False)
    rows = in_multiples(seconds, "python -c pass")
    return [{**row, "seconds": statistics.median(seconds[row["name"]])} for row in rows]


def folder(options: argparse.Namespace) -> Rows:
    """Pictures a second through a folder, as shares of the engine's best, and memory at the peak."""
    category = chosen(options)
    with tempfile.TemporaryDirectory() as scratch:
        file = taught(category, Path(scratch), options)
        pictures = copies(category, Path(scratch, "pictures"), options.folder)
        backbone = fast(options.sizes[0])
        alone, inspector = bare(backbone), Inspector.load(file)
        contestants: dict[str, Run] = {
            BARE: lambda number: [alone(one) for one in range(options.folder)],
            "the bare graph, OpenVINO's throughput hint": throughput(backbone, options.folder),
            "the pictures read, nothing more": lambda number: [read_picture(path) for path in pictures.iterdir()],
            "Inspector.stream": lambda number: sum(1 for _ in inspector.stream(pictures)),
            "handful inspect, its start included": lambda number: started("-m", "handful", "inspect", file, pictures),
        }
        rows = in_multiples(in_turn(contestants, options.slow_rounds, warm=False), BARE, pictures=options.folder)
        for count in options.peak:
            some = copies(category, Path(scratch, str(count)), count)
            rows.append({"pictures": count, "peak_mb": peak_mb("-m", "handful", "inspect", file, some)})
    return rows


def throughput(backbone: OpenVINOBackbone, count: int) -> Run:
    """As many pictures through the same graph as the engine likes to have at once."""
    import openvino

    model = openvino.Core().read_model(backbone.entries[GRAPH_ENTRY], backbone.entries[CONSTANTS_ENTRY])
    hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
    queue = openvino.AsyncInferQueue(openvino.compile_model(model, "CPU", hints))
    image = np.random.default_rng(0).random((1, 3, *backbone.spec.size), dtype=np.float32)

    def run(number: int) -> None:
        for _ in range(count):
            queue.start_async({0: image}, share_inputs=True)
        queue.wait_all()

    return run


def coreset(options: argparse.Namespace) -> Rows:
    """The choice of a hundredth of random rows, and how far the farthest row is from those chosen."""
    points = torch.randn(options.rows, DEPTH, generator=torch.Generator().manual_seed(0))
    size, chosen_by = options.rows // 100, dict[str, Tensor]()

    def ours(number: int) -> None:
        chosen_by["handful"] = greedy_coreset(points, size)

    def theirs(number: int) -> None:
        chosen_by["anomalib"] = _peer.coreset(points, 0.01)

    contestants: dict[str, Run] = {"handful": ours, **({} if options.alone else {"anomalib": theirs})}
    if not options.alone:
        _peer.coreset(points[:100], 0.01)  # what is imported for the first choice takes seconds
    rows = in_multiples(in_turn(contestants, options.slow_rounds, warm=False), "handful", rows=options.rows)
    for row in rows:
        chosen = points[chosen_by[row["name"]]]
        radius = max(float(torch.cdist(some, chosen).amin(1).max()) for some in points.split(4096))
        row |= {"chosen": len(chosen), "radius": radius}
    return rows


def fast(size: int, *, precision: Precision = "f32") -> OpenVINOBackbone:
    """The default backbone on the fastest engine."""
    backbone: Backbone = backbones.create(size=(size, size), engine="openvino", precision=precision)
    assert isinstance(backbone, OpenVINOBackbone)
    return backbone


def at_bf16(size: int) -> dict[str, OpenVINOBackbone]:
    """It at bf16, by what its rows are called; none where the CPU does not compute in it."""
    try:
        return {", bf16": fast(size, precision="bf16")}
    except SettingError:
        return {}


def taught(category: Category, scratch: Path, options: argparse.Namespace) -> Path:
    """The file of an inspector as shipped, of the most references and at the first size asked for."""
    file = scratch / "part.handful"
    references = draw(category.train, shots=max(options.shots), seed=0)
    Detector(size=options.sizes[0], engine="openvino").fit(references).save(file)
    return file


def started(*words: str | Path) -> None:
    """Run a Python program to its end; one that says DEFECT or RETAKE of a picture has worked."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if done.returncode and not done.stdout:
        sys.exit(f"{' '.join(map(str, words))} failed: {done.stderr}")


def peak_mb(*words: str | Path) -> float:
    """Megabytes (10^6 bytes) of resident memory at a program's peak.

    A small process of its own starts it: what a large one starts would count its starter's memory as its own.
    """
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, sys.executable, *words]
    used = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return used / 1e6 if sys.platform == "darwin" else used * 1024 / 1e6


PARTS: dict[str, Callable[[argparse.Namespace], Rows]] = {
    "inspection": inspection,
    "fit": fit,
    "cold": cold,
    "folder": folder,
    "coreset": coreset,
    "gpu": gpu,
}

if __name__ == "__main__":
    main()
