"""Many pictures, many inspectors, on this machine or many: the rooms of `handful score`."""

from typing import TYPE_CHECKING, Any

from handful.errors import check_packages

if TYPE_CHECKING:
    from handful.scale.planning import Found, plan
    from handful.scale.results import compact, table
    from handful.scale.scoring import score, todo
    from handful.scale.worker import Options, ShardSummary, Worker

__all__ = ["Found", "Options", "ShardSummary", "Worker", "compact", "plan", "score", "table", "todo"]

_HOMES = {
    "Found": "planning",
    "Options": "worker",
    "ShardSummary": "worker",
    "Worker": "worker",
    "compact": "results",
    "plan": "planning",
    "score": "scoring",
    "table": "results",
    "todo": "scoring",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: `handful.scale.pool`, which `inspect` uses, needs no package more."""
    if name not in _HOMES:
        raise AttributeError(f"module 'handful.scale' has no attribute {name!r}")
    from importlib import import_module

    check_packages("handful.scale", "scale")
    return getattr(import_module(f"handful.scale.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, for tab completion."""
    return __all__
