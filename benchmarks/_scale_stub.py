"""Inspections without an inspector, and inspections that end their process: for `handful score`'s machinery alone.

Each function is an `opening` of `handful.scale.Options`.
"""

import hashlib
import os
import signal
import time
from pathlib import Path

from handful.report.result import Inspection
from handful.scale.worker import Judge, open_inspector
from handful.types import Verdict


def stub(content: bytes, threads: int, max_pixels: int | None) -> Judge:
    """Judge by the digest of a picture's bytes, without decoding them."""
    digest = hashlib.sha256(content).hexdigest()

    def judge(picture: bytes, name: str) -> tuple[Inspection, str | None]:
        score = int.from_bytes(hashlib.sha256(picture).digest()[:6], "big") / 2**47  # below 2
        verdict = Verdict.DEFECT if score > 1 else Verdict.OK
        return Inspection(name, verdict, score, score, 1.0, size=(1, 1), inspector=digest), None

    return judge


def poisoned(content: bytes, threads: int, max_pixels: int | None) -> Judge:
    """Judge by the real inspector, and end the process at pictures that are named so."""
    inspect = open_inspector(content, threads, max_pixels)

    def judge(picture: bytes, name: str) -> tuple[Inspection, str | None]:
        if "segfault" in name:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "memory" in name:  # as the kernel ends the process that takes the most
            os.kill(os.getpid(), signal.SIGKILL)
        if "forever" in name:
            time.sleep(1e6)
        return inspect(picture, name)

    return judge


def slow(content: bytes, threads: int, max_pixels: int | None) -> Judge:
    """Judge like `stub`, at 5 ms a picture, so that there is time to end a process."""
    inspect = stub(content, threads, max_pixels)

    def judge(picture: bytes, name: str) -> tuple[Inspection, str | None]:
        time.sleep(0.005)
        return inspect(picture, name)

    return judge


def noted(content: bytes, threads: int, max_pixels: int | None) -> Judge:
    """Judge by the real inspector, and note the load as a byte more in the file that HANDFUL_NOTED_LOADS names."""
    with Path(os.environ["HANDFUL_NOTED_LOADS"]).open("ab") as file:
        file.write(b".")
    return open_inspector(content, threads, max_pixels)
