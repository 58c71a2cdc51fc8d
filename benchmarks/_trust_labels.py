"""Labels and graphs: masks that are nearly right, batches given to exported graphs, and both ways to a graph."""

import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from handful import backbones
from handful.data.images import list_pictures
from handful.data.layouts.registry import open_dataset
from handful.data.masks import marked
from handful.detector import Detector
from handful.evaluation.benchmark import Benchmark
from handful.graphs import openvino_writer
from handful.graphs.openvino import openvino
from handful.saved import scoring_graph

CATEGORY, DEFECT = "mvtec_ad/pill", "scratch"
SHOTS, SEEDS = 4, (0, 1, 2)
AUPRO_BOUND = 1.0  # percentage points of AUPRO that masks reduced by a factor of four may move


def jpeg(mask: Image.Image, quality: int) -> Image.Image:
    """What JPEG leaves of a mask."""
    file = io.BytesIO()
    mask.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue())).convert("L")


def soft(mask: Image.Image) -> Image.Image:
    """A mask reduced by four and enlarged again."""
    small = mask.resize((mask.width // 4, mask.height // 4), Image.Resampling.BILINEAR)
    return small.resize(mask.size, Image.Resampling.BICUBIC)


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as they are": lambda mask: mask,
    "JPEG, quality 75": lambda mask: jpeg(mask, 75),
    "JPEG, quality 95": lambda mask: jpeg(mask, 95),
    "soft edges": soft,
}


def measure(data: Path) -> dict[str, Any]:
    """AUPRO by kind of masks, the masks of DIR that are no labels, batches by answer, and both ways to a graph.

    Args:
        data: data sets in the layout of MVTec AD, a folder each, `CATEGORY` among them.
    """
    with tempfile.TemporaryDirectory() as place:
        aupro = {kind: _aupro(data / CATEGORY, make, Path(place, str(n))) for n, (kind, make) in enumerate(_kinds())}
        good = list_pictures(data / CATEGORY / "train" / "good", recursive=False)[:SHOTS]
        return {
            "aupro": aupro,
            "masks": _masks(data),
            "batches": _batches(Detector().fit(list(map(str, good))), Path(place, "graphs")),
            "ways": _ways(list(map(str, good)), Path(place, "part.handful")),
        }


def _kinds() -> Iterator[tuple[str, Callable[[Image.Image], Image.Image]]]:
    """Each kind of masks as it is, and with every value but 0 counted, as earlier versions counted."""
    for kind, make in KINDS.items():
        yield kind, make
        if kind != "as they are":
            yield f"{kind}, every value counts", partial(_every_value, make)


def _every_value(make: Callable[[Image.Image], Image.Image], mask: Image.Image) -> Image.Image:
    return Image.fromarray(np.where(np.asarray(make(mask)) > 0, 255, 0).astype(np.uint8))


def _aupro(category: Path, make: Callable[[Image.Image], Image.Image], place: Path) -> float:
    """Mean AUPRO over seeds of the default method, with masks of a kind."""
    root = place / "data" / category.name
    for part in ("train/good", "test/good", f"test/{DEFECT}"):
        shutil.copytree(category / part, root / part)
    truth = root / "ground_truth" / DEFECT
    truth.mkdir(parents=True)
    for path in list_pictures(category / "ground_truth" / DEFECT, recursive=False):
        make(Image.open(path).convert("L")).save(truth / f"{path.stem}.png")
    benchmark = Benchmark(
        {"pills": open_dataset(root.parent)},
        backbones.create(),
        place / "results",
        methods=["handful"],
        shots=[SHOTS],
        seeds=SEEDS,
    )
    values = [row.aupro for row in benchmark.run()]
    assert all(value is not None for value in values), "a cell failed"
    return float(np.mean(np.array(values, float)))


def _masks(data: Path) -> dict[str, int]:
    """How many masks the data sets hold, and how many of these are not counted label by label."""
    paths = sorted(path for path in data.rglob("*.png") if "ground_truth" in path.parts)
    return {"masks": len(paths), "soft": sum(marked(np.asarray(Image.open(path).convert("L")))[1] for path in paths)}


def _batches(detector: Detector, folder: Path) -> dict[str, dict[str, int]]:
    """For each format, how often a graph that was reshaped answered right, answered wrong, and refused."""
    detector.export(folder, formats=("openvino", "onnx"))
    height, width = detector.backbone_spec.size
    batch = np.random.default_rng(0).random((2, 3, height, width), dtype=np.float32)
    inputs = [batch[:1], batch, batch[:1].reshape(1, 3, height // 2, 2 * width), batch[:, :, ::2, ::2], batch[:0]]
    shapes: list[list[int]] = [[-1, 3, height, width], [-1, -1, -1, -1], *(list(given.shape) for given in inputs)]
    runs = {"openvino": _run_openvino, "onnx": _run_onnx}
    found = {}
    for name, run in runs.items():
        right = run(folder, list(batch[:1].shape), batch[:1])
        counts = {"right": 0, "wrong": 0, "refused": 0}
        for shape in shapes:
            for given in inputs:
                try:
                    answer = run(folder, shape, given)
                except Exception:  # each engine has errors of its own
                    counts["refused"] += 1
                else:
                    same = len(given) == 1 and given.shape == batch[:1].shape and np.allclose(answer, right, rtol=1e-4)
                    counts["right" if same else "wrong"] += 1
        found[name] = counts
    return found


def _run_openvino(folder: Path, shape: list[int], given: NDArray[np.float32]) -> NDArray[np.float32]:
    core = openvino.Core()
    model = core.read_model(folder / "model.xml")
    model.reshape(shape)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer: NDArray[np.float32] = compiled({"image": given})["raw_score"]
    return answer


def _run_onnx(folder: Path, shape: list[int], given: NDArray[np.float32]) -> NDArray[np.float32]:
    model = onnx.load(folder / "model.onnx")
    for number, (side, dimension) in enumerate(
        zip(shape, model.graph.input[0].type.tensor_type.shape.dim, strict=True)
    ):
        if side == -1:
            dimension.dim_param = f"side{number}"
        else:
            dimension.dim_value = side
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answer: NDArray[np.float32] = session.run(["raw_score"], {"image": given})[0]
    return answer


def _ways(good: list[str], file: Path) -> dict[str, dict[str, float]]:
    """By each way to a graph, the seconds of a save and how far the graph's answers lie from the inspector's."""
    found, kept = {}, openvino_writer._quickly_converted
    try:
        for way, convert in {"quick": kept, "documented": _gone}.items():
            openvino_writer._quickly_converted = convert
            scoring_graph._entries.cache_clear()
            detector = Detector().fit(good)
            begin = time.perf_counter()
            detector.save(file)
            seconds = time.perf_counter() - begin
            graph = Detector.load(file)._needed.graph
            assert graph is not None, "no graph was kept"
            found[way] = {"seconds": seconds, "score": graph.score, "map": graph.map}
    finally:
        openvino_writer._quickly_converted = kept
        scoring_graph._entries.cache_clear()
    return found


def _gone(*_: object, **__: object) -> Any:
    raise ImportError("as if the names that are not public were gone")


def page(found: dict[str, Any]) -> list[str]:
    """The Markdown of what `measure` found."""
    return [
        "## Labels and graphs",
        *_aupro_lines(found["aupro"]),
        f"Of the {found['masks']['masks']} masks of all data sets, {found['masks']['soft']} are taken for soft or "
        f"noisy (bound: 0).",
        *_batch_lines(found["batches"]),
        *_way_lines(found["ways"]),
    ]


def _aupro_lines(aupro: dict[str, float]) -> list[str]:
    rows = ["| masks | AUPRO | off by | were every value counted |", "|---|---|---|---|"]
    for kind in KINDS:
        every = aupro.get(f"{kind}, every value counts")
        off = aupro[kind] - aupro["as they are"]
        rows.append(f"| {kind} | {aupro[kind]:.1f} | {off:+.1f} | {'' if every is None else f'{every:.1f}'} |")
    return [
        f"**Masks.** AUPRO of the default method on {CATEGORY}, {DEFECT}, {SHOTS} references, mean of {len(SEEDS)} "
        f"draws, by how the masks were saved. Bound: within {AUPRO_BOUND:g} of the masks as they are. The right "
        f"column counts every value but 0, as Handful did before.",
        "\n".join(rows),
    ]


def _batch_lines(batches: dict[str, dict[str, int]]) -> list[str]:
    rows = ["| graph | right | refused | wrong |", "|---|---|---|---|"]
    rows += [f"| {name} | {n['right']} | {n['refused']} | {n['wrong']} |" for name, n in batches.items()]
    return [
        "**Batches.** Exported graphs, reshaped in seven ways, and five inputs for each: the one that fits, two "
        "pictures, other sides twice, and no picture. Bound: none answered wrong.",
        "\n".join(rows),
    ]


def _way_lines(ways: dict[str, dict[str, float]]) -> list[str]:
    said = [f"{way['seconds']:.1f} s, within {max(way['score'], way['map']):.0e}" for way in ways.values()]
    return [
        f"**Ways to a graph.** Seconds of a save, and how far the graph's answers lie from the inspector's: "
        f"{said[0]} by names of torch and OpenVINO that are not public; {said[1]} by the documented "
        f"interfaces, with all of these names hidden (bound: {scoring_graph.TOLERANCE:g})."
    ]
