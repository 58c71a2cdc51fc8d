"""Forked processes: engines that still compute after a fork, and errors for engines that do not.

A forked process has a single thread; the other threads of its parent are lost.

- OpenVINO computes with a graph that was compiled before the fork, on the remaining thread. When compiling another
  graph, releasing a compiled graph or ending the process in the ordinary way, OpenVINO waits for its lost threads or
  aborts. Compiling is therefore refused, compiled graphs are never released in a forked process, and a forked process
  skips the clean-up of C libraries when it ends.
- torch waits for its lost threads for ever if it computes with more than one thread, and is then refused.

A fork waits until the inspections under way in other threads have ended: a lock held by such a thread, for example of
an import, would stay locked in the forked process for ever. New inspections wait for the fork, so that threads which
inspect without a break cannot delay the fork for ever.
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
_used = set[Engine]()  # engines that have computed in this process
_lost = set[Engine]()  # engines that have computed in a parent of this process, and have lost their threads
_kept = WeakSet[object]()  # objects that hold compiled graphs


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
    """Raise ProcessError in a process in which OpenVINO cannot compile a graph."""
    if lost("openvino"):
        raise ProcessError(
            "An inspector must be loaded before a process forks, or in a process that was spawned, got a process that "
            "was forked after OpenVINO had run; start processes with multiprocessing.get_context('spawn')."
        )


def check_torch() -> None:
    """Record that torch computes in this process; raise ProcessError if torch would wait for lost threads for ever."""
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
    """Before a fork: let no other thread begin a computation, and wait for the computations under way."""
    own = threading.get_ident()
    _state.acquire()
    _forking.append(own)
    _state.wait_for(lambda: all(thread == own for thread in _under_way))


def _resume() -> None:
    """After a fork, in the parent: let computations begin again."""
    _forking.remove(threading.get_ident())
    _state.notify_all()
    _state.release()


def _begin() -> None:
    """After a fork, in the forked process: record lost engines, and keep OpenVINO from releasing its graphs."""
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
    if hasattr(libc, "on_exit"):  # glibc calls the function with the exit code before C libraries clean up
        libc.on_exit(libc._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait, after_in_parent=_resume, after_in_child=_begin)
