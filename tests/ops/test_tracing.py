"""What is traced knows of it, and nothing else does."""

import multiprocessing
import os
import threading
import time

import pytest
import torch
from torch import nn

from handful.ops import tracing as tracing_module
from handful.ops.tracing import computing, exporting, is_tracing, tracing


def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


class Told(nn.Module):
    def forward(self, values):
        return values + is_tracing()


def test_it_is_so_in_there_alone():
    assert not is_tracing()
    with tracing():
        with tracing():
            assert is_tracing()
        assert is_tracing()
    assert not is_tracing()


def test_an_error_ends_it():
    with pytest.raises(ZeroDivisionError), tracing():
        raise ZeroDivisionError
    assert not is_tracing()


def test_torch_export_traces():
    zeros = torch.zeros(1)
    assert Told()(zeros) == 0
    assert torch.export.export(Told(), (zeros,)).module()(zeros) == 1
    assert not is_tracing()


def test_torch_export_traces_in_its_own_thread_alone():
    zeros = torch.zeros(1)
    seen = []
    with exporting():
        exported = torch.export.export(Told(), (zeros,), strict=False)
        in_thread(lambda: seen.append(is_tracing()))
    assert exported.module()(zeros) == 1 and Told()(zeros) == 0
    assert seen == [False] and not is_tracing()


def test_an_export_waits_for_computations_and_later_computations_wait_for_it():
    order, begun, may_end = [], threading.Event(), threading.Event()

    def compute(name, *waits):
        with computing(), computing():  # the inner one never waits
            begun.set()
            assert all(event.wait(10) for event in waits)
            order.append(name)

    def export():
        with exporting(), computing():  # nor does the exporter wait for itself
            order.append("export")

    first = threading.Thread(target=compute, args=("first", may_end))
    first.start()
    assert begun.wait(10)
    exporter = threading.Thread(target=export)
    exporter.start()
    while tracing_module._order.exporter is None:
        time.sleep(0.001)
    later = threading.Thread(target=compute, args=("later",))
    later.start()
    time.sleep(0.05)  # either of them would have ended by now, had it not waited
    assert order == []
    may_end.set()
    for thread in (first, exporter, later):
        thread.join(10)
    assert order == ["first", "export", "later"]


def test_one_thread_traces_at_a_time():
    inside, most = [], []

    def trace():
        with tracing():
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=trace) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == [1] * 4


def compute_once():
    with computing():
        pass


def test_an_error_frees_the_others():
    for held in (computing, exporting):
        with pytest.raises(ZeroDivisionError), held():
            raise ZeroDivisionError
    with exporting():
        pass
    in_thread(compute_once)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # newer Pythons warn of a fork beside threads
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_process_waits_for_no_thread_that_it_lacks():
    begun, may_end = threading.Event(), threading.Event()

    def compute():
        with computing(), tracing():
            begun.set()
            may_end.wait(30)

    thread = threading.Thread(target=compute)
    thread.start()
    assert begun.wait(10)
    child = multiprocessing.get_context("fork").Process(target=_export)
    child.start()
    child.join(10)
    may_end.set()
    thread.join()
    assert child.exitcode == 0


def _export():
    with exporting():
        pass
