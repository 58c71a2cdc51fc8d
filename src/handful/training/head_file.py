"""The file of a trained head: a safetensors file that any number of inspectors refer to by its digest.

Some heads are shipped with Handful, in `SHIPPED`; LICENSE.txt there says which pictures they were trained on.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from handful import methods
from handful.backbones.base import BackboneSpec
from handful.errors import HandfulError, InputError, InspectorError, PackageError, SettingError, WeightsError
from handful.files import replacing
from handful.training import checkpoint

SHIPPED = Path(__file__).with_name("heads")  # the folder of the shipped heads, METHOD.safetensors each
SAME = ("name", "levels", "size", "weights_sha256")  # fields that a backbone must share with the head's backbone


@dataclass(frozen=True)
class Record:
    """The description of a head in its file.

    Attributes:
        method: the name of the head's method.
        settings: the settings of the training.
        depths: channels of each level.
        backbone: the fields `SAME` of the backbone that the head was trained on.
        classes: data set and category of every class of the training, held-out classes included, made products not.
        held_out: the held-out classes, by whose validation the head was chosen.
        validation: the mean image AUROC on the held-out classes, in percent, by the number of updates made.
        pictures: the digests of every picture of the classes.
        seed: the seed of the training.
    """

    method: str
    settings: dict[str, Any]
    depths: tuple[int, ...]
    backbone: dict[str, Any]
    classes: tuple[str, ...]
    held_out: tuple[str, ...]
    validation: dict[str, float]
    pictures: tuple[str, ...]
    seed: int


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head ready for use, which any number of detectors may share.

    Attributes:
        module: the networks of the head.
        record: the description of the head and its training.
        sha256: the digest of the head's file.
        name: the name of the head's file.
    """

    module: methods.Head
    record: Record
    sha256: str
    name: str

    def __reduce__(self) -> "tuple[Callable[[bytes, Path], TrainedHead], tuple[bytes, Path]]":
        """Pickle and copy by way of the head's file."""
        return _parsed, (_content(self.module, self.record), Path(self.name))

    def check(self, spec: BackboneSpec) -> None:
        """Raise SettingError, with the first difference, unless the head was trained on the given backbone."""
        for field, expected in self.record.backbone.items():
            if identity(spec)[field] != expected:
                raise SettingError(
                    f"The backbone must be that of the training of {self.name}, with {field} {expected}, got "
                    f"{identity(spec)[field]}; choose that backbone, or train a head on this backbone with `handful "
                    f"train {self.record.method}`."
                )

    def check_unseen(self, category: str) -> None:
        """Raise InputError if a category of the given name belongs to the head's training or its validation."""
        for name in self.record.classes:
            if name.rpartition("/")[2].lower() == category.lower():
                raise InputError(
                    f"A head must not be tested on categories of its training, got {name}, which {self.name} was "
                    f"trained on; train a head without it."
                )

    def check_new(self, digest: str, path: str) -> None:
        """Raise InputError if the picture at `path`, recognised by its digest, belongs to the head's training."""
        if digest in self._pictures:
            raise InputError(
                f"A head must not be tested on pictures of its training, got {path}, which {self.name} was trained "
                f"on; train a head without that data set."
            )

    @cached_property
    def _pictures(self) -> frozenset[str]:
        return frozenset(self.record.pictures)


Head = str | os.PathLike[str] | TrainedHead | None  # the path of a head's file, a head read before, or None


def shipped_file(method: str) -> Path | None:
    """The file of the head that is shipped for a method; None if no head is shipped."""
    path = SHIPPED / f"{method}.safetensors"
    return path if path.is_file() else None


def shipped(method: str) -> TrainedHead | None:
    """Read the head that is shipped for a method; None if no head is shipped."""
    path = shipped_file(method)
    return None if path is None else read(path)


def identity(spec: BackboneSpec) -> dict[str, Any]:
    """The fields `SAME` of a backbone, as a dictionary for JSON."""
    values = {field: getattr(spec, field) for field in SAME}
    return {field: list(value) if isinstance(value, tuple) else value for field, value in values.items()}


def write(path: Path, module: methods.Head, record: Record) -> None:
    """Write a trained head.

    Raises:
        OutputError: if the file cannot be written.
    """
    with replacing(path) as file:
        file.write(_content(module, record))


def _content(module: methods.Head, record: Record) -> bytes:
    metadata = {"handful": json.dumps(asdict(record))}
    return safetensors.torch.save(checkpoint.on_cpu(module.state_dict()), metadata)


def read(path: Path) -> TrainedHead:
    """Read a trained head.

    Raises:
        WeightsError: if the file is missing, damaged, or no head.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    return _parsed(content, path)


def _parsed(content: bytes, path: Path) -> TrainedHead:
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # as safetensors lays it out
        fields = json.loads(header["__metadata__"]["handful"])
        record = Record(
            **fields | {name: tuple(fields[name]) for name in ("depths", "classes", "held_out", "pictures")}
        )
        training = methods.create_head_training(record.method, record.settings)
        module = training.make_head(record.depths, seed=record.seed)
        module.load_state_dict(safetensors.torch.load(content))
    except PackageError:
        raise
    except (SafetensorError, HandfulError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _unreadable(path, error) from error
    return TrainedHead(module.eval(), record, hashlib.sha256(content).hexdigest(), path.name)


def _unreadable(path: Path, error: Exception) -> WeightsError:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return WeightsError(
        f"A head must be a whole file written by `handful train`, got {path}: {said}; train or copy it again."
    )


def named(path: Path, manifest: Mapping[str, Any], given: Head) -> TrainedHead | None:
    """The head that an inspector's manifest names.

    Args:
        path: of the inspector, beside which the head's file is searched.
        manifest: of the inspector.
        given: the head, or its file; None for the shipped head of the manifest's digest, else the file beside the
            inspector.

    Raises:
        InspectorError: if the given or found head is another head.
        WeightsError: if the file is missing or cannot be read.
    """
    meant = manifest.get("head")  # absent in files older than heads
    if meant is None:
        return None
    if given is None:
        given = _shipped_as(meant["sha256"]) or path.parent / Path(meant["name"]).name
    head = given if isinstance(given, TrainedHead) else read(Path(given))
    if head.sha256 != meant["sha256"]:
        raise InspectorError(
            f"{path} must be given the head that it was fitted with, {meant['name']} of sha256 {meant['sha256']}, got "
            f"{head.sha256}; name that file."
        )
    return head


def _shipped_as(sha256: str) -> Path | None:
    """The shipped file of a digest."""
    files = sorted(SHIPPED.glob("*.safetensors"))
    return next((file for file in files if hashlib.sha256(file.read_bytes()).hexdigest() == sha256), None)
