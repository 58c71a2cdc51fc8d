"""The contract of a method: Features in, Scores out, and a state that can be saved."""

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

# target-only: learnt from the references alone; auxiliary-trained: from another labelled data set as well.
# Results of the two never stand in one column.
Protocol = Literal["target-only", "auxiliary-trained"]
# Whether references are learnt in turned copies too; "auto" where they show that parts turn.
Turn = Literal["auto", "never", "always"]


@dataclass(kw_only=True, eq=False)
class Configured:
    """Settings as the fields of a dataclass, each of the type that it is annotated with.

    Attributes:
        name: what the command line and files call it.
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
        """The settings by name, ready for JSON."""
        return {name: getattr(self, name) for name in self.setting_names()}


@dataclass(kw_only=True, eq=False)
class Method(Configured, ABC):
    """The contract of a method: settings as fields, `fit`, `score`, and learnt attributes whose names end in `_`.

    A subclass is a dataclass whose fields are its settings, and implements `_fit`, `_score`, `state` and `_restore`.
    Construction only stores and checks; `fit` forgets any earlier fit; `score` changes nothing.

    Attributes:
        name: what the command line and saved inspectors call the method.
        protocol: what it has learnt from before it sees the references, see `Protocol`.
        good_spread: standard deviation of the log scores of good parts of one product, a typical one.
        single_widening: how many times as high another good part scores as mild variations of the picture where `fit`
            has seen a single one; with `score_against_itself`, as the geometric mean of those scores and that one.
        single_spread: standard deviation of that factor's logarithm between products.
        good_falling: good scores fall with this power of the number of references. All four are PatchCore's where a
            method has none of its own, see benchmarks/threshold/patchcore.md.
        ample: how many further good pictures take the references' place in the threshold, see
            `handful.inspection.threshold.Prior`; 0 for never, as measured for the default method alone.
        min_references: how many pictures `fit` needs: 1, or 0 for a method that knows what an anomaly is without.
        traceable: whether torch can follow `_score` into a graph: tensor operations on the levels alone, and no branch
            that depends on a picture's values.
        needs_text: whether it scores by text prototypes, which a clip: backbone alone gives.
        order_matters: whether scores depend on the order of the references, by more than rounding.
        reach: how far from the middle of a small defect the map may peak, in patches of the finest grid.
        head_: what an auxiliary-trained method was given before `fit`, see `take_head`; None for any other.
        depths_: channels of each level seen in `fit`, None before it.
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
        """The number of random variations of each reference that `fit` takes too."""
        return 0

    @property
    def crops_wanted(self) -> Crops | None:
        """The crops of each picture that `fit` and `score` take too, as `Features.crops`; None without."""
        return None

    @property
    def turn_wanted(self) -> Turn:
        """Whether `fit` takes turned copies of the references too."""
        return "never"

    @property
    def weighs_defects(self) -> bool:
        """Whether `weigh` takes references with synthetic defects too."""
        return False

    @property
    def takes_loose_patches(self) -> bool:
        """Whether `fit` also takes patches without their grid, (B, 1, N, D) at every level: those kept of tiles."""
        return False

    @computing()
    def fit(self, references: Features, *, augmented: Features | None = None, turned: Features | None = None) -> Self:
        """Learn from the features of good pictures, of `min_references` or more.

        Args:
            references: of the pictures.
            augmented: of `views_wanted` random variations of each picture, one picture's after the other's, every level
                averaged over places: (B · views_wanted, 1, 1, D). None where none are wanted.
            turned: patches of C turned copies of each picture, (B, C, N, D) at every level, where parts turn and the
                method wants them, see `turn_wanted`; else None.

        Raises:
            InputError: without a picture, with a value that is not finite, with other variations than wanted, with
                turned copies of more or fewer pictures or unasked, without crops or texts that are wanted, or with
                other channels than the head was trained for.
            SettingError: without a head where the method needs one.
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
        """Score pictures; each one's scores do not depend on the others in the batch.

        Raises:
            NotFittedError: before `fit`.
            InputError: without a picture, with a value that is not finite, without crops or texts that are wanted, or
                with other channels than in `fit`.
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
        """Which kinds of evidence count in the scores, and why others do not, in words; None for a method of one."""
        return None

    def terms(self, queries: Features) -> Tensor | None:
        """The pictures' scores by each kind of evidence that the method joins, higher is more anomalous: (B, T).

        The first kind always counts, the others after `weigh`. None for a method of one kind, and where `fit` has left
        the others out.
        """
        return None

    def weigh(self, terms: Tensor, planted: Tensor | None = None) -> None:
        """Bring all kinds of evidence to one scale by what they make of good pictures that were not learnt.

        Args:
            terms: (B, T) of each reference, two or more, by a method that has learnt the others.
            planted: (N, 2, T) of references without and with a synthetic defect, likewise; None where none are planted.
        """
        raise NotImplementedError

    def weigh_alone(self, terms: Tensor) -> None:
        """As `weigh`, where `fit` has seen a single picture.

        Args:
            terms: (V, T) of mild variations of that picture.
        """
        raise NotImplementedError

    def weighed_as(self, other: Self) -> Self:
        """Take over the scale that `weigh` gave another method of the same settings."""
        return self

    def score_against_itself(self, reference: Features) -> Scores | None:
        """Score the single picture that `fit` has seen by comparing its places with one another.

        None for a method that cannot; then mild variations of the picture are all that there is to go by.
        """
        return None

    @property
    def transductive(self) -> bool:
        """Whether the scores of an evaluation are to depend on the test set as a whole, as a paper's code has it.

        Only a setting named `paper_compat` may make it so; see `over_test_set`.
        """
        return False

    def over_test_set(self, parts: Sequence[tuple[Tensor, ...]]) -> Iterator[Scores]:
        """The scores that a transductive method's code would report for a whole test set, one picture at a time.

        They are for evaluation alone: no threshold holds for them.

        Args:
            parts: `Scores.parts` of every picture by itself.
        """
        raise NotImplementedError(f"{self.name} does not look at a test set as a whole.")

    def take_head(self, head: "Head | None") -> Self:
        """Take over what was trained on auxiliary data; the same head may serve any number of methods.

        Raises:
            SettingError: if the head is another method's.
        """
        if head is not None and head.method != self.name:
            raise SettingError(f"`head` must be one of {self.name}, got one of {head.method}; choose that method.")
        self.head_ = head
        return self

    def unfitted(self) -> Self:
        """A new one of the same settings, on the same head."""
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
                f"Features must hold the crops that {self.name} wants of each picture, got none; `Detector` makes them."
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
        """Take over what another fitted method of the same settings gave as `state`."""
        return self.restore(state, depths=tuple(state["depths"].tolist()))

    def restore(self, state: dict[str, Tensor], *, depths: tuple[int, ...]) -> Self:
        """As `load_state`, the levels' channels given: torch.export, which follows for a graph, knows no values."""
        self.depths_ = depths
        self._restore(state)
        return self

    def to(self, device: str) -> Self:
        """Move what `fit` learnt, and the head, to a device."""
        if self.head_ is not None:
            self.head_.to(device)
        return self.load_state({name: tensor.to(device) for name, tensor in self.state().items()})

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What `fit` learnt, and the levels' channels as `depths`: `load_state` then scores bit for bit equal."""

    @abstractmethod
    def _fit(self, references: Features) -> None: ...

    def _fit_augmented(self, references: Features, augmented: Features) -> None:
        """Learn, after `_fit`, from variations too: to be written where `views_wanted` is above 0."""
        raise NotImplementedError

    def _fit_turned(self, references: Features, turned: Features) -> None:
        """Learn, after `_fit`, from turned copies too: to be written where `turn_wanted` is not "never"."""
        raise NotImplementedError

    @abstractmethod
    def _score(self, queries: Features) -> Scores: ...

    @abstractmethod
    def _restore(self, state: dict[str, Tensor]) -> None: ...


def _is_a(value: object, kind: object) -> bool:
    """Whether a value may stand for a type or a literal: a whole number for a float, but no bool for a number."""
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
    """Raise the house's sentence about a setting unless its rule holds."""
    if not holds:
        raise SettingError(f"`{setting}` must be {rule}, got {value!r}.")


def _check_finite(features: Features, *, least: int = 1) -> None:
    if not features.levels or len(features) < least:
        raise InputError("Features must hold at least one picture, got none.")
    # Values are not known while a graph is traced: there NaN comes out as NaN.
    if not is_tracing() and features.unfinite_level is not None:
        raise InputError(
            f"Features must be finite, got NaN or infinity in level {features.unfinite_level}; look at that picture."
        )


class Head(nn.Module):
    """What an auxiliary-trained method learns on a labelled data set and then keeps for every product.

    Attributes:
        method: the name of the method that it belongs to.
        depths: channels of each level that it was made for.
    """

    def __init__(self, method: str, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.method, self.depths = method, depths
