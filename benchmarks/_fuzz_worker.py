"""The process that `fuzz` puts inputs to: it answers one after the other, under limits, and may die of one."""

import faulthandler
import resource
import time
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

ROOM = 3 << 30  # bytes of address space that an input may ask for beyond what the process has before the first
FINDINGS = ("traceback", "no sentence", "memory", "slow", "hang", "crash")


@dataclass(frozen=True)
class Answer:
    """What became of one input.

    Attributes:
        number: of the input.
        outcome: accepted, refused, or one of `FINDINGS`.
        words: of the refusal or the finding.
        seconds: that it took, by the clock or by the processor, whichever is shorter: other programs run beside.
        peak: the process's highest resident memory meanwhile, MB; of a command line less that before, as the process
            holds the packages of all verbs at once.
        resting: its resident memory afterwards, MB.
    """

    number: int
    outcome: str
    words: str
    seconds: float
    peak: float
    resting: float = 0.0


def work(connection: Connection, folder: Path, seeds: Path, seed: int, verbs: bool) -> None:
    """Answer (kind, number) pairs as they come, until None does.

    Args:
        connection: to who asks.
        folder: where an input's files lie.
        seeds: the folder that `make_seeds` made.
        seed: of everything.
        verbs: whether to import what the verbs need, so that no input is timed with that.
    """
    faulthandler.enable()
    warnings.simplefilter("ignore")  # files that a zip lists twice are written on purpose
    from _fuzz_kinds import Workshop

    shop = Workshop(folder, seeds, seed)
    if verbs:
        _import_verbs()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + ROOM, resource.RLIM_INFINITY))
    connection.send("ready")
    while (asked := connection.recv()) is not None:
        connection.send(_answer(shop, *asked, verbs=verbs))


def _import_verbs() -> None:
    import torch

    torch.set_num_threads(1)


def _answer(shop: "Workshop", kind: str, number: int, *, verbs: bool) -> Answer:  # type: ignore[name-defined]  # noqa: F821
    question = shop.prepare(kind, number)
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident memory counts from here
    before = _status("VmRSS") if verbs else 0
    begin = time.perf_counter(), time.process_time()
    outcome, words = _outcome(question)
    seconds = min(time.perf_counter() - begin[0], time.process_time() - begin[1])
    return Answer(number, outcome, words, seconds, (_status("VmHWM") - before) / 1e6, _status("VmRSS") / 1e6)


def _outcome(question: object) -> tuple[str, str]:
    from _fuzz_commands import BrokenError, RefusedError
    from _fuzz_kinds import WrongError, check_sentence
    from handful.errors import HandfulError

    try:
        question()  # type: ignore[operator]
    except RefusedError as error:
        return "refused", str(error)
    except HandfulError as error:
        try:
            check_sentence(str(error))
        except WrongError as wrong:
            return "no sentence", str(wrong)
        return "refused", str(error)
    except (WrongError, BrokenError) as error:
        return ("traceback" if "should not have happened" in str(error) else "no sentence"), str(error)
    except BaseException:
        return "traceback", traceback.format_exc(limit=-6)
    return "accepted", ""


def _status(name: str) -> int:
    """A size of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
