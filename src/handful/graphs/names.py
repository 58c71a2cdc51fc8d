"""The names of the files, inputs and outputs of graphs."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # torch takes a second to import, and a saved inspector needs none of it
    from torch import Tensor

# A graph of a whole inspector, ready to run: (1, 3, H, W) → raw map (1, H, W), raw score (1,).
Graph = Callable[["Tensor"], tuple[NDArray[np.float32], NDArray[np.float32]]]

GRAPH_ENTRY, CONSTANTS_ENTRY = "backbone.xml", "backbone.bin"  # of a backbone, in a saved inspector
SCORING_ENTRY, SCORING_CONSTANTS_ENTRY = "scoring.xml", "scoring.bin"  # of a method's scoring, in a saved inspector
GRAPH_INPUT, GRAPH_OUTPUTS = "image", ("raw_map", "raw_score")  # of a graph of a whole inspector
# The inputs of the graph of a method's scoring are named by these prefixes and a number or name: the levels of the
# picture, the state of the method, and the levels of the good picture whose patches replace an ignored region's.
LEVEL_INPUT, STATE_INPUT, GOOD_INPUT = "level.", "state.", "good."
