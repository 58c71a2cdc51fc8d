"""Whether torch traces a computation, for a graph, in which another order of it is quick than in torch itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_tracing = ContextVar("_tracing", default=False)


@contextmanager
def tracing() -> Iterator[None]:
    """Let what is computed in here know that it is traced: make_fx does not tell."""
    before = _tracing.set(True)
    try:
        yield
    finally:
        _tracing.reset(before)


def is_tracing() -> bool:
    """Whether something traces: values count for nothing then, and must decide nothing."""
    return _tracing.get() or torch.compiler.is_compiling()
