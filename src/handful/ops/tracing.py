"""Locks among threads: only one thread traces at a time, and torch.export runs only while no other thread computes.

torch.export switches mkldnn off for the whole process while it runs, which rounds convolutions differently: without
locks, a picture that another thread scores meanwhile would get a different score. Tracing by make_fx switches nothing.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_tracing = ContextVar("_tracing", default=False)


class _Order:
    """The locks, and the threads that hold them.

    Attributes:
        tracer: the lock of the thread that traces; that thread may take the lock again.
        changed: guards the fields below, and wakes waiting threads after a change.
        computing: the number of threads that compute.
        exporter: the thread that exports, or waits for the others to end their computations; None for none.
        depth: for each thread, the number of nested computations.
    """

    def __init__(self) -> None:
        self.tracer = threading.RLock()
        self.changed = threading.Condition()
        self.computing = 0
        self.exporter: int | None = None
        self.depth = threading.local()


_order = _Order()


def _forget() -> None:
    """Release all locks in a forked process, which has no thread but its own."""
    global _order
    _order = _Order()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def tracing() -> Iterator[None]:
    """Trace the computations of this thread inside the block; other threads that want to trace wait.

    A block of `computing` must not contain `tracing`: an exporting thread would wait for the computation to end, and
    the computation for the export.
    """
    with _order.tracer:
        before = _tracing.set(True)
        try:
            yield
        finally:
            _tracing.reset(before)


@contextmanager
def exporting() -> Iterator[None]:
    """Trace by torch.export inside the block: begins when no other thread computes; other threads wait for its end."""
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
    """Compute in torch inside the block, beside other threads but not while another thread exports."""
    order, this = _order, threading.get_ident()
    depth = getattr(order.depth, "value", 0)
    if depth or order.exporter == this:  # the thread would wait for itself
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
    """Whether this thread traces. Tensors then have no values, and no branch may depend on them.

    `torch.compiler.is_compiling` is true in every thread while any thread exports, so it counts only if no thread of
    this process is inside `exporting`.
    """
    return _tracing.get() or (_order.exporter is None and torch.compiler.is_compiling())
