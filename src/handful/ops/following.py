"""Whether torch only writes a computation down, for a graph, where another order is quick than in torch itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_following = ContextVar("_following", default=False)


@contextmanager
def following() -> Iterator[None]:
    """Have what is computed in here take itself as written down."""
    before = _following.set(True)
    try:
        yield
    finally:
        _following.reset(before)


def followed() -> bool:
    """Whether this is `following`, or torch.export is: values count for nothing then, and must decide nothing."""
    return _following.get() or torch.compiler.is_compiling()
