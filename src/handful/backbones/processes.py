"""Forked processes: which engines still compute there, and which are refused with a sentence.

A forked process has one thread; those of its parent are gone.

- OpenVINO computes with a graph that was compiled before the fork, on the one thread that is left. To compile another
  graph, to release a compiled one, or to end the process in the ordinary way, OpenVINO waits for its lost threads or
  aborts. Compiling is therefore refused, compiled graphs are never released in a forked process, and a forked process
  leaves out the clean-up of C libraries when it ends.
- torch waits for its lost threads for ever as soon as it computes with more than one. It is refused then.

A fork waits until every inspection that is under way in another thread has ended: a lock that such a thread holds, of
an import say, would stay locked in the forked process for ever. Inspections that have not begun wait for the fork: else
threads that inspect without a break would let it wait for ever.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from weakref import WeakSet

from handful.errors import ProcessError

Engine = Literal["openvino", "torch"]

_state = threading.Condition()
_under_way: list[int] = []  # the thread of each computation
_forking: list[int] = []  # the threads that are about to fork
_used = set[Engine]()  # in this process
_lost = set[Engine]()  # used in a parent of this process, whose threads are gone
_kept = WeakSet[object]()  # what holds compiled graphs


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let a fork by another thread wait until the block ends."""
    thread = threading.get_ident()
    with _state:
        _state.wait_for(lambda: not _forking or thread in _under_way or thread in _forking)
        _under_way.append(thread)
    try:
        yield
    finally:
        with _state:
            _under_way.remove(thread)
            _state.notify_all()


@contextmanager
def computing(engine: Engine) -> Iterator[None]:
    """Record that an engine computes in this process, and let a fork wait for the end."""
    with undisturbed():
        _used.add(engine)
        yield


def lost(engine: Engine) -> bool:
    """Whether this process was forked from one in which the engine had computed."""
    return engine in _lost


def check_compiling() -> None:
    """Raise ProcessError where OpenVINO cannot compile a graph."""
    if lost("openvino"):
        raise ProcessError(
            "An inspector must be loaded before a process forks, or in a process that was spawned, got a process that "
            "was forked after OpenVINO had run; start processes with multiprocessing.get_context('spawn')."
        )


def check_torch() -> None:
    """Record that torch computes in this process; raise ProcessError where it would wait for lost threads for ever."""
    import torch

    if lost("torch") and torch.get_num_threads() > 1:
        raise ProcessError(
            "torch must compute in a process that was spawned, or with one thread (torch.set_num_threads(1)), got a "
            "process that was forked after torch had run; start processes with multiprocessing.get_context('spawn')."
        )
    _used.add("torch")


def keep(holder: object) -> None:
    """Never release an object that holds compiled graphs in a forked process."""
    _kept.add(holder)


def _wait() -> None:
    """Before a fork: let no other thread begin a computation, and wait for the ends of those under way."""
    own = threading.get_ident()
    _state.acquire()
    _forking.append(own)
    _state.wait_for(lambda: all(thread == own for thread in _under_way))


def _resume() -> None:
    """After a fork, in the parent."""
    _forking.remove(threading.get_ident())
    _state.notify_all()
    _state.release()


def _begin() -> None:
    """After a fork, in the forked process."""
    _lost.update(_used)
    _used.clear()
    _forking.clear()
    _state.release()
    if "openvino" not in _lost:
        return
    import ctypes

    for holder in _kept:  # never released
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(holder))
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc's: calls a function with the exit code, before C libraries clean up
        libc.on_exit(libc._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait, after_in_parent=_resume, after_in_child=_begin)
