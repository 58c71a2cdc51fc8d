"""Many pictures inspected by processes of one thread each, with the answers of a single process, in order.

A thread computes a picture's inspection with less processor time than several threads together, and processes do not
wait for each other as Python's threads do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from handful.data.images import Picture, PictureSource
from handful.errors import ProcessError
from handful.inspector import Inspector
from handful.report.result import Inspection
from handful.scale.pool import Died, Pool, usable_cores

EACH = 100  # pictures; a process that inspects fewer takes longer to start than it saves
_CHUNK = 4  # pictures of a task

Sources = Sequence[tuple[PictureSource, str]]
Answers = list[tuple[Inspection, Picture | None]]


def is_quicker(inspector: Inspector, pictures: int) -> bool:
    """Whether processes would inspect so many pictures sooner than this process."""
    return pictures >= 2 * EACH and usable_cores() > 1 and inspector.preprocessing.tiles is None


def by_processes(
    content: bytes, sources: Sources, *, max_pixels: int | None, keep_pictures: bool
) -> Iterator[tuple[Inspection, Picture | None]]:
    """Inspect pictures and yield each answer in turn; a few pictures for each process are held in memory.

    Args:
        content: of the file of an inspector with a graph.
        sources: each a picture that can be pickled, and its name.
        max_pixels: the largest number of pixels of a picture; None for the inspector's own.
        keep_pictures: whether to yield each picture as read with its answer; else None.

    Raises:
        ProcessError: if a process ends.
        InspectorError, SettingError: see `Inspector.load`.
    """
    chunks = [sources[start : start + _CHUNK] for start in range(0, len(sources), _CHUNK)]
    count = max(1, min(usable_cores(), len(sources) // EACH))
    with Pool(_Opening(content, max_pixels, keep_pictures), count) as pool:
        for chunk, answers in pool.in_order(chunks, ahead=2 * count):
            if isinstance(answers, Died):
                raise ProcessError(
                    f"A process that inspects must live, got its end ({answers}) at {chunk[0][1]} or one of the "
                    f"{len(chunk) - 1} pictures after it; inspect these alone, and see whether the memory suffices."
                )
            yield from answers


@dataclass(frozen=True)
class _Opening:
    """Makes, in a process, the function from a chunk of pictures to their answers."""

    content: bytes
    max_pixels: int | None
    keep_pictures: bool

    def __call__(self) -> Callable[[Sources], Answers]:
        inspector = Inspector.load(self.content, threads=1)._limited(self.max_pixels)

        def answers(sources: Sources) -> Answers:
            found = [inspector._inspect_source(source, name=name) for source, name in sources]
            return found if self.keep_pictures else [(inspection, None) for inspection, _ in found]

        return answers
