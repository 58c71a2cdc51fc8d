"""Random numbers from a seed, for code that draws from torch's global generator."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_DRAWS = {  # the functions that draw the initial weights of networks, all of which take a generator
    *(getattr(nn.init, name) for name in ("uniform_", "normal_", "trunc_normal_", "orthogonal_")),
    *(getattr(nn.init, f"{scheme}_{law}_") for scheme in ("xavier", "kaiming") for law in ("uniform", "normal")),
    *(getattr(torch.Tensor, f"{law}_") for law in ("normal", "uniform", "random", "bernoulli", "exponential")),
    *(getattr(torch, name) for name in ("normal", "rand", "randn", "randint", "randperm", "bernoulli", "multinomial")),
}


class seeded(TorchFunctionMode):  # noqa: N801 - used as a statement: with seeded(0):
    """Let torch draw from a generator of a given seed inside the block, in this thread alone.

    The CPU's numbers equal the numbers after `torch.manual_seed(seed)`, but torch's global generator and the numbers of
    other threads do not change.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, with this generator if the function draws and was given no generator."""
        named = dict(options or {})
        if function in _DRAWS and named.get("generator") is None:
            named["generator"] = self.generator
        return function(*arguments, **named)
