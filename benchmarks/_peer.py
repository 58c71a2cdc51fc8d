"""What the benchmarks that compare with anomalib's PatchCore share; the package itself is the extra `peers`."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from handful.backbones.onboard import read_state, weights_file

PEER = "anomalib PatchCore"


def patchcore() -> Any:
    """Its torch model on the backbone, the levels and the weights that are Handful's default."""
    import timm
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(layers=["blocks.2", "blocks.4"], backbone="tf_efficientnet_lite0", pre_trained=False)
    file = weights_file("tf_efficientnet_lite0")
    assert file is not None, "the weights on board are a dependency"
    network = timm.create_model("tf_efficientnet_lite0")
    trunk = model.feature_extractor.feature_extractor
    trunk.load_state_dict({name: v for name, v in read_state(file, network).items() if name in trunk.state_dict()})
    model.feature_extractor.eval()
    return model


def teach(model: Any, inputs: Iterable[Tensor]) -> None:
    """Let the model keep every patch of these references, (1, 3, H, W) each, and forget those of before."""
    model.train()
    model.embedding_store = []
    for image in inputs:
        model(image)
    model.memory_bank = torch.vstack(model.embedding_store)
    model.eval()


def exported(model: Any, size: int) -> Callable[[Tensor], object]:
    """The taught model on OpenVINO at float32, one picture at a time; its answer is (score, map)."""
    import openvino

    example = torch.zeros(1, 3, size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, which fixes what depends on a shape
        graph = openvino.convert_model(_Answers(model).eval(), example_input=example, input=[1, 3, size, size])
    compiled = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"})
    return lambda image: compiled([image.numpy()]).to_tuple()


class _Answers(nn.Module):
    """The two answers that a traced model may give: OpenVINO knows no answer that is missing."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        answer = self.model(image)
        return answer.pred_score, answer.anomaly_map


def coreset(points: Tensor, share: float) -> Tensor:
    """The rows of (N, D) that it would keep, as numbers."""
    from anomalib.models.components import KCenterGreedy

    return torch.tensor(KCenterGreedy(points, share).select_coreset_idxs())


def model_input(pixels: NDArray[np.uint8], size: int) -> Tensor:
    """As anomalib's users bring a picture to this backbone: bicubic, mean and deviation 0.5; → (1, 3, size, size)."""
    resized = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    return ((torch.from_numpy(np.array(resized, dtype=np.float32)).permute(2, 0, 1) / 255 - 0.5) / 0.5)[None]
