"""Order among threads: one traces a computation for a graph at a time, and torch.export runs while no other computes.

torch.export switches mkldnn off for the whole process while it runs, which rounds convolutions differently: without an
order a picture scored by another thread meanwhile would get another score. Tracing by make_fx changes no switch.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_tracing = ContextVar("_tracing", default=False)


class _Order:
    """The locks, and who holds them.

    Attributes:
        tracer: held by the thread that traces; the same thread may take it again.
        changed: guards the fields below, and tells threads that wait of a change.
        computing: how many threads compute.
        exporter: the thread that exports, or waits for the others to end their computations.
        depth: for each thread, how many computations it has entered.
    """

    def __init__(self) -> None:
        self.tracer = threading.RLock()
        self.changed = threading.Condition()
        self.computing = 0
        self.exporter: int | None = None
        self.depth = threading.local()


_order = _Order()


def _forget() -> None:
    """In a forked process no other thread is left: whatever they held is free."""
    global _order
    _order = _Order()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def tracing() -> Iterator[None]:
    """Trace what this thread computes inside; other threads that want to trace wait.

    Never enter it inside `computing`: a thread that exports would wait for the computation, and that for the export.
    """
    with _order.tracer:
        before = _tracing.set(True)
        try:
            yield
        finally:
            _tracing.reset(before)


@contextmanager
def exporting() -> Iterator[None]:
    """As `tracing`, for torch.export: waits until no other thread computes, and lets none begin before the end."""
    order = _order
    with tracing():
        with order.changed:
            outer, order.exporter = order.exporter, threading.get_ident()
        try:
            with order.changed:
                order.changed.wait_for(lambda: order.computing == 0)
            yield
        finally:
            with order.changed:
                order.exporter = outer
                order.changed.notify_all()


@contextmanager
def computing() -> Iterator[None]:
    """Compute in torch beside other threads, but not while another thread exports."""
    order, this = _order, threading.get_ident()
    depth = getattr(order.depth, "value", 0)
    if depth or order.exporter == this:  # waiting here would be waiting for itself
        yield
        return
    with order.changed:
        order.changed.wait_for(lambda: order.exporter is None)
        order.computing += 1
    order.depth.value = depth + 1
    try:
        yield
    finally:
        order.depth.value = depth
        with order.changed:
            order.computing -= 1
            order.changed.notify_all()


def is_tracing() -> bool:
    """Whether this thread traces: tensors' values are not known then, and no branch may depend on them.

    torch tells of a torch.export in any thread. That counts only where `exporting` has not begun it.
    """
    return _tracing.get() or (_order.exporter is None and torch.compiler.is_compiling())
