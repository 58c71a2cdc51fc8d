"""A trained head in a file, and back: one safetensors file that any number of inspectors refer to by its digest."""

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

SAME = ("name", "levels", "size", "weights_sha256")  # what a backbone must share with the one a head was trained on


@dataclass(frozen=True)
class Record:
    """What a head's file says of it.

    Attributes:
        method: whose head it is.
        settings: of its training.
        depths: channels of each level.
        backbone: what `SAME` names of the backbone that it was trained on.
        classes: data set and category of all that it has learnt from or was chosen by.
        held_out: those of them that it was chosen by.
        validation: the mean image AUROC on these, in percent, by the number of updates made.
        pictures: digests of every picture that it has learnt from or was chosen by.
        seed: of its training.
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
    """A head ready for use; share one between as many detectors as there are products.

    Attributes:
        module: the network.
        record: what it was trained on.
        sha256: of its file.
        name: its file's name.
    """

    module: methods.Head
    record: Record
    sha256: str
    name: str

    def __reduce__(self) -> "tuple[Callable[[bytes, Path], TrainedHead], tuple[bytes, Path]]":
        """Pickle and copy by way of the file."""
        return _parsed, (_content(self.module, self.record), Path(self.name))

    def check(self, spec: BackboneSpec) -> None:
        """Raise SettingError, which names the first difference, unless the head was trained on this backbone."""
        for field, expected in self.record.backbone.items():
            if identity(spec)[field] != expected:
                raise SettingError(
                    f"The backbone must be the one that {self.name} was trained on, with {field} {expected}, got "
                    f"{identity(spec)[field]}; choose that, or train a head on this one."
                )

    def check_unseen(self, category: str) -> None:
        """Raise InputError if the head has learnt from a category of this name or was chosen by such a category."""
        for name in self.record.classes:
            if name.rpartition("/")[2].lower() == category.lower():
                raise InputError(
                    f"A head must not be tested on what it was trained on, got {name} among those of {self.name}; "
                    f"train one without it."
                )

    def check_new(self, digest: str, path: str) -> None:
        """Raise InputError if the picture at `path`, told by its digest, belongs to the head's training."""
        if digest in self._pictures:
            raise InputError(
                f"A head must not be tested on what it was trained on, got {path} among those of {self.name}; "
                f"train one without that data set."
            )

    @cached_property
    def _pictures(self) -> frozenset[str]:
        return frozenset(self.record.pictures)


Head = str | os.PathLike[str] | TrainedHead | None  # as people name one: its file, one read before, or none


def identity(spec: BackboneSpec) -> dict[str, Any]:
    """What a head must find again in a backbone, ready for JSON."""
    values = {field: getattr(spec, field) for field in SAME}
    return {field: list(value) if isinstance(value, tuple) else value for field, value in values.items()}


def write(path: Path, module: methods.Head, record: Record) -> None:
    """Write a trained head.

    Raises:
        OutputError: if it cannot be written.
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
        path: of the inspector, beside which the head lies.
        manifest: of the inspector.
        given: the head, or its file; None to look for it.

    Raises:
        InspectorError: if another one was given or lies beside it.
        WeightsError: if there is none, or it cannot be read.
    """
    meant = manifest.get("head")  # inspectors saved before there were heads name none
    if meant is None:
        return None
    if given is None:
        given = path.parent / Path(meant["name"]).name
    head = given if isinstance(given, TrainedHead) else read(Path(given))
    if head.sha256 != meant["sha256"]:
        raise InspectorError(
            f"{path} must be given the head that it was fitted with, {meant['name']} of sha256 {meant['sha256']}, got "
            f"{head.sha256}; name that file."
        )
    return head
