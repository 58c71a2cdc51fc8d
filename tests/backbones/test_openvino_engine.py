import subprocess
import sys

import numpy as np
import torch
from torch import nn

from handful.backbones.openvino_engine import write_graph

PROBE = """
import sys
import handful.backbones.openvino_engine as engine
assert "openvino" in sys.modules
import openvino.tools.ovc.telemetry_utils as telemetry
assert telemetry.tm.__name__.endswith("telemetry_stub"), telemetry.tm.__name__
import importlib
assert importlib.util.find_spec("openvino_telemetry"), "the package itself stays importable"
print("silent")
"""


def test_importing_openvino_reports_to_nobody():
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    assert done.stdout == "silent\n", done.stderr


class InPlace(nn.Module):
    def forward(self, image):
        values = image.mean(1).clone()
        values[:, 2:5].mul_(3.0).add_(1.0)  # a part of what goes on
        return values, values.amax((1, 2))


def test_what_is_changed_in_place_is_changed_in_the_graph(tmp_path):
    image = torch.rand(1, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    found, own = write_graph(InPlace(), torch.ones_like(image), tmp_path)(image), InPlace()(image)
    assert all(np.allclose(one, other, rtol=1e-6) for one, other in zip(found, own, strict=True))
