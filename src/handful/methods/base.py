"""The contract of a method: `Features` in, `Scores` out, and a state that can be saved."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Self, get_args, get_type_hints

import torch
from torch import Tensor, nn

from handful.errors import InputError, NotFittedError, SettingError
from handful.ops.tracing import computing, is_tracing
from handful.types import Crops, Features, Scores

# target-only: the method learns from the references alone; auxiliary-trained: from another labelled data set too.
# Tables show the results of the two protocols in separate columns.
Protocol = Literal["target-only", "auxiliary-trained"]
# Whether turned copies of the references are learnt too; "auto" if the references show that parts turn.
Turn = Literal["auto", "never", "always"]


@dataclass(kw_only=True, eq=False)
class Configured:
    """Settings as the fields of a dataclass, each of the type that it is annotated with.

    Attributes:
        name: the name in the command line and in files.
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        """Check that every setting has its type; subclasses then check its bounds.

        Raises:
            SettingError: for a setting of another type, or a number that is not finite.
        """
        hints = get_type_hints(type(self))
        for name in self.setting_names():
            value, kinds = getattr(self, name), get_args(hints[name]) or (hints[name],)
            require(any(_is_a(value, kind) for kind in kinds), name, _words(kinds), value)

    @classmethod
    def setting_names(cls) -> list[str]:
        """The names of the settings that the constructor takes."""
        return [setting.name for setting in fields(cls) if setting.init]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by name, as a dictionary for JSON."""
        return {name: getattr(self, name) for name in self.setting_names()}


@dataclass(kw_only=True, eq=False)
class Method(Configured, ABC):
    """The contract of a method: settings as fields, `fit`, `score`, and learnt attributes whose names end in `_`.

    A subclass is a dataclass whose fields are its settings, and implements `_fit`, `_score`, `state` and `_restore`.
    Construction only stores and checks; `fit` forgets any earlier fit; `score` changes nothing.

    Attributes:
        name: the method's name in the command line and in saved inspectors.
        protocol: the data that the method learns from, see `Protocol`.
        good_spread: standard deviation of the log scores between good parts of a typical product.
        single_widening: the inflation with a single reference: the expected ratio of another good part's score to the
            score of mild variations of the reference; for a method with `score_against_itself`, to the geometric mean
            of that score and the score of mild variations.
        single_spread: standard deviation of the ratio's logarithm between products.
        good_falling: good scores fall with this power of the number of references. These four values default to
            PatchCore's, see benchmarks/threshold/patchcore.md.
        ample: the number of further good pictures from which on the references' scores no longer count in the
            threshold, see `handful.inspection.threshold.Prior`; 0 for never. Measured for the default method alone.
        min_references: the least number of pictures for `fit`: 1, or 0 for a method that needs no references.
        traceable: whether torch can trace `_score` into a graph: tensor operations on the levels alone, and no branch
            that depends on a picture's values.
        needs_text: whether the method scores by text prototypes, which only a clip: backbone has.
        order_matters: whether scores depend on the order of the references, by more than rounding.
        reach: the largest distance of the map's peak from the middle of a small defect, in patches of the finest grid.
        head_: the trained head of an auxiliary-trained method, given before `fit`, see `take_head`; None for any other.
        depths_: channels of each level in `fit`; None before `fit`.
    """

    name: ClassVar[str]
    protocol: ClassVar[Protocol] = "target-only"
    good_spread: ClassVar[float] = 0.07
    single_widening: ClassVar[float] = 2.0
    single_spread: ClassVar[float] = 0.12
    good_falling: ClassVar[float] = 0.08
    ample: ClassVar[int] = 0
    min_references: ClassVar[int] = 1
    traceable: ClassVar[bool] = False
    needs_text: ClassVar[bool] = False
    order_matters: ClassVar[bool] = False
    reach: ClassVar[float] = 1.0
    head_: "Head | None" = field(default=None, init=False, repr=False)
    depths_: tuple[int, ...] | None = field(default=None, init=False, repr=False)

    @property
    def views_wanted(self) -> int:
        """The number of random variations of each reference that `fit` needs besides the reference."""
        return 0

    @property
    def crops_wanted(self) -> Crops | None:
        """The crops of each picture that `fit` and `score` need in `Features.crops`; None for no crops."""
        return None

    @property
    def turn_wanted(self) -> Turn:
        """Whether `fit` needs turned copies of the references."""
        return "never"

    @property
    def weighs_defects(self) -> bool:
        """Whether `weigh` needs references with synthetic defects."""
        return False

    @property
    def takes_loose_patches(self) -> bool:
        """Whether `fit` accepts patches without a grid, (B, 1, N, D) at every level, as kept of tiles."""
        return False

    @computing()
    def fit(self, references: Features, *, augmented: Features | None = None, turned: Features | None = None) -> Self:
        """Learn from the features of good pictures, of `min_references` or more.

        Args:
            references: the features of B pictures.
            augmented: the features of `views_wanted` random variations of each picture, in the order of the pictures,
                every level averaged over places: (B · views_wanted, 1, 1, D). None if `views_wanted` is 0.
            turned: patches of C turned copies of each picture, (B, C, N, D) at every level, see `turn_wanted`; None
                without turned copies.

        Raises:
            InputError: without a picture, with a value that is not finite, with another number of variations, with
                turned copies of another number of pictures or for a method without them, without needed crops or texts,
                or with other channels than the head was trained for.
            SettingError: without a head if the method needs a head.
        """
        self._check(references, least=self.min_references)
        self._check_head(references.depths)
        got, wanted = 0 if augmented is None else len(augmented), self.views_wanted * len(references)
        if got != wanted:
            raise InputError(
                f"`augmented` must hold {self.views_wanted} variations of each reference, {wanted} in all, got {got}; "
                f"`Detector` makes them."
            )
        self._check_turned(len(references), turned)
        if augmented is not None:
            _check_finite(augmented)
        self.depths_ = references.depths
        self._fit(references)
        if augmented is not None:
            self._fit_augmented(references, augmented)
        if turned is not None:
            self._fit_turned(references, turned)
        return self

    @computing()
    @torch.inference_mode()
    def score(self, queries: Features) -> Scores:
        """Score pictures; no picture's scores depend on the others in the batch.

        Raises:
            NotFittedError: before `fit`.
            InputError: without a picture, with a value that is not finite, without needed crops or texts, or with other
                channels than in `fit`.
        """
        if self.depths_ is None:
            raise NotFittedError(f"{type(self).__name__} must be fitted before it scores; call `fit` first.")
        self._check(queries)
        if queries.depths != self.depths_:
            raise InputError(
                f"Features must have {self.depths_} channels as in `fit`, got {queries.depths}; use the same backbone."
            )
        return self._score(queries)

    @property
    def evidence(self) -> str | None:
        """The kinds of evidence that count in the scores, and the reason why others do not, in words.

        None for a method with a single kind of evidence.
        """
        return None

    def terms(self, queries: Features) -> Tensor | None:
        """The pictures' scores by each of T kinds of evidence, higher is more anomalous: (B, T).

        The first kind always counts, the others after `weigh`. None for a method with a single kind, and if `fit` has
        left the other kinds out.
        """
        return None

    def weigh(self, terms: Tensor, planted: Tensor | None = None) -> None:
        """Bring all kinds of evidence to a common scale, by their leave-one-out scores of good pictures.

        Args:
            terms: (B, T), the `terms` of each of two or more references by a method fitted to the other references.
            planted: (N, 2, T), the `terms` of references without and with a synthetic defect, by methods fitted to the
                other references; None without synthetic defects.
        """
        raise NotImplementedError

    def weigh_alone(self, terms: Tensor) -> None:
        """Bring all kinds of evidence to a common scale after a fit to a single reference.

        Args:
            terms: (V, T), the `terms` of mild variations of the reference.
        """
        raise NotImplementedError

    def weighed_as(self, other: Self) -> Self:
        """Copy the evidence scale that `weigh` gave another method of the same settings."""
        return self

    def score_against_itself(self, reference: Features) -> Scores | None:
        """Score a single reference by comparing each of its places with the rest of the picture.

        None for a method that cannot; calibration then rests on mild variations of the reference alone.
        """
        return None

    @property
    def transductive(self) -> bool:
        """Whether scores in an evaluation depend on the whole test set, as in a paper's code.

        Only a setting named `paper_compat` may switch this on; see `over_test_set`.
        """
        return False

    def over_test_set(self, parts: Sequence[tuple[Tensor, ...]]) -> Iterator[Scores]:
        """The scores that a transductive paper's code reports for a whole test set, a picture at a time.

        These scores are for evaluation alone: no threshold holds for them.

        Args:
            parts: `Scores.parts` of every picture.
        """
        raise NotImplementedError(f"{self.name} does not score a test set as a whole.")

    def take_head(self, head: "Head | None") -> Self:
        """Set the trained head; any number of methods may share the same head.

        Raises:
            SettingError: if the head belongs to another method.
        """
        if head is not None and head.method != self.name:
            raise SettingError(
                f"`head` must be a head of {self.name}, got a head of {head.method}; choose that method."
            )
        self.head_ = head
        return self

    def unfitted(self) -> Self:
        """A new, unfitted method of equal settings with the same head."""
        return type(self)(**self.settings).take_head(self.head_)

    def _check_turned(self, references: int, turned: Features | None) -> None:
        if turned is None:
            return
        if self.turn_wanted == "never" or len(turned) != references:
            wanted = "none" if self.turn_wanted == "never" else f"those of {references} references"
            raise InputError(f"`turned` must hold {wanted}, got those of {len(turned)}; `Detector` makes them.")
        _check_finite(turned)

    def _check(self, features: Features, *, least: int = 1) -> None:
        _check_finite(features, least=least)
        if self.needs_text and (features.image is None or features.text is None):
            raise InputError(
                f"{self.name} must be given CLIP's embeddings and text prototypes, got features without; use a clip: "
                f"backbone with patches or windows among its levels."
            )
        if self.crops_wanted is None:
            return
        if features.crops is None:
            raise InputError(
                f"Features must hold the crops that {self.name} needs of each picture, got none; `Detector` makes them."
            )
        _check_finite(features.crops)

    def _check_head(self, depths: tuple[int, ...]) -> None:
        if self.protocol == "target-only":
            return
        if self.head_ is None:
            raise SettingError(
                f"{self.name} must be given a head, got none; train one with `handful train {self.name}`."
            )
        if self.head_.depths != depths:
            raise InputError(
                f"Features must have {self.head_.depths} channels, as the head was trained for, got {depths}; use the "
                f"same backbone and levels."
            )

    def load_state(self, state: dict[str, Tensor]) -> Self:
        """Load the `state` of another fitted method of equal settings."""
        return self.restore(state, depths=tuple(state["depths"].tolist()))

    def restore(self, state: dict[str, Tensor], *, depths: tuple[int, ...]) -> Self:
        """Load a `state` with given channels of the levels, for tracing, in which tensors have no values."""
        self.depths_ = depths
        self._restore(state)
        return self

    def to(self, device: str) -> Self:
        """Move the learnt state and the head to a device."""
        if self.head_ is not None:
            self.head_.to(device)
        return self.load_state({name: tensor.to(device) for name, tensor in self.state().items()})

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """The learnt tensors by name, and the levels' channels as `depths`; `load_state` gives bit-equal scores."""

    @abstractmethod
    def _fit(self, references: Features) -> None: ...

    def _fit_augmented(self, references: Features, augmented: Features) -> None:
        """Learn from random variations too, after `_fit`; a method with `views_wanted` above 0 overrides this."""
        raise NotImplementedError

    def _fit_turned(self, references: Features, turned: Features) -> None:
        """Learn from turned copies too, after `_fit`; a method whose `turn_wanted` is not "never" overrides this."""
        raise NotImplementedError

    @abstractmethod
    def _score(self, queries: Features) -> Scores: ...

    @abstractmethod
    def _restore(self, state: dict[str, Tensor]) -> None: ...


def _is_a(value: object, kind: object) -> bool:
    """Whether a value fits a type or a literal; an integer fits a float, but a bool fits no number."""
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value == kind if isinstance(kind, str) else value is None and kind is type(None)


def _words(kinds: tuple[object, ...]) -> str:
    if all(isinstance(kind, str) for kind in kinds):
        return f"one of {', '.join(map(str, kinds))}"
    names: dict[object, str] = {
        bool: "true or false",
        float: "a finite number",
        int: "a whole number",
        type(None): "None",
    }
    return " or ".join(names[kind] for kind in kinds)


def require(holds: bool, setting: str, rule: str, value: object) -> None:
    """Raise SettingError with the rule and the value of a setting, unless the rule holds."""
    if not holds:
        raise SettingError(f"`{setting}` must be {rule}, got {value!r}.")


def _check_finite(features: Features, *, least: int = 1) -> None:
    if not features.levels or len(features) < least:
        raise InputError("Features must hold at least one picture, got none.")
    # Tensors have no values while a graph is traced; in a graph, NaN gives NaN.
    if not is_tracing() and features.unfinite_level is not None:
        raise InputError(
            f"Features must be finite, got NaN or infinity in level {features.unfinite_level}; look at that picture."
        )


class Head(nn.Module):
    """The networks that an auxiliary-trained method learns on a labelled data set and then uses for every product.

    Attributes:
        method: the name of the method that the head belongs to.
        depths: channels of each level that the head was made for.
    """

    def __init__(self, method: str, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.method, self.depths = method, depths
