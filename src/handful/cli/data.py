"""The verbs for labelled data sets: `data check`, `data meta`, `data corrupt` and `data defects`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handful.cli.options import JsonOption, ManyValues, NewFolderOption
from handful.cli.output import FAILED, complain, print_json, say
from handful.data.progress import bar
from handful.errors import needing

if TYPE_CHECKING:
    from handful.types import Category, Dataset

LayoutOption = Annotated[str, typer.Option(help="How the data set is laid out; default: found out.")]
SeedOption = Annotated[int, typer.Option(help="Of all that is random.")]

app = typer.Typer(no_args_is_help=True, help="Check, convert and make labelled data sets.")


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A labelled data set.")],
    layout: LayoutOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Say what a data set holds, lacks and leaves out, which masks are soft, and which training pictures are tested on.

    Exit code 2 if nothing usable is there, or a picture stands in both halves; what is only missing is just said.
    """
    from handful.data.layouts.registry import open_dataset
    from handful.data.layouts.unused import sentences, unused
    from handful.data.leaks import leaks

    with needing("`handful data check`", "fit"):
        from handful.data.masks import softened

    dataset = open_dataset(folder, layout=layout)
    leaked, soft, left_out = leaks(dataset), softened(dataset), unused(dataset)
    if as_json:
        for category in dataset.categories:
            print_json(_counts(category))
        said = {"missing": list(dataset.missing), "masks": list(soft), "leaks": list(leaked)}
        print_json({"layout": dataset.layout, **said, "left_out": [asdict(one) for one in left_out]})
    else:
        _say_counts(f"layout {dataset.layout},", dataset)
        for sentence in (*dataset.missing, *soft, *sentences(dataset, left_out), *leaked):
            say(sentence)
    if leaked:
        count = len(leaked)
        complain(f"No test picture may be a training picture too, got {count} of them; remove them from one half.")
        raise typer.Exit(FAILED)


@app.command()
def meta(
    folder: Annotated[Path, typer.Argument(help="A labelled data set.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; default: meta.json in the data set's folder.")
    ] = None,
    layout: LayoutOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Write meta.json, the list of pictures that FASL, AnomalyCLIP and their family read; an older one is replaced."""
    from handful.data.layouts import meta as format_
    from handful.data.layouts.registry import open_dataset

    dataset = open_dataset(folder, layout=layout)
    path = output or (folder if folder.is_dir() else folder.parent) / format_.NAME
    format_.write(dataset, path)
    if dataset.missing:
        complain(f"The data set lacks something; `handful data check {folder}` says what.")
    _print_written(path, dataset, as_json=as_json)


@app.command(cls=ManyValues)
def corrupt(
    source: Annotated[
        Path, typer.Argument(help="A labelled data set, a folder of class folders, or a folder of pictures.")
    ],
    output: NewFolderOption,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            help="Of gaussian_noise, salt_and_pepper, gaussian_blur, motion_blur, brightness, contrast and jpeg; "
            "several may follow; default: all."
        ),
    ] = None,
    severity: Annotated[int, typer.Option(help="1 (mild) to 5.")] = 3,
    seed: SeedOption = 0,
    layout: LayoutOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Make a data set whose good pictures are clean and whose defects are the same pictures, corrupted."""
    with needing("`handful data corrupt`", "corrupt"):
        from handful.data import corruption

    dataset = corruption.write_task(
        source, output, kinds=kinds or corruption.KINDS, severity=severity, seed=seed, layout=layout, track=bar
    )
    _print_written(output, dataset, as_json=as_json)


@app.command()
def defects(
    good: Annotated[Path, typer.Argument(help="A folder of good pictures.")],
    output: NewFolderOption,
    per_image: Annotated[int, typer.Option(help="Defects of each test picture.")] = 10,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a data set from good pictures alone: every second one is tested with synthetic defects and their masks."""
    with needing("`handful data defects`", "fit"):
        from handful.data.synthetic import write_defects

    dataset = write_defects(good, output, per_image=per_image, seed=seed, track=bar)
    _print_written(output, dataset, as_json=as_json)


def _print_written(path: Path, dataset: "Dataset", *, as_json: bool) -> None:
    if as_json:
        print_json({"path": str(path), "categories": [_counts(category) for category in dataset.categories]})
    else:
        _say_counts(f"{path}:", dataset)


def _say_counts(label: str, dataset: "Dataset") -> None:
    rows = [_counts(category) for category in dataset.categories]
    say(f"{label} {len(rows)} categor{'y' if len(rows) == 1 else 'ies'}")
    width = max(len(row["category"]) for row in rows)
    for row in rows:
        say(
            f"{row['category']:<{width}}  train {row['train_good']} good, test {row['test_good']} good and "
            f"{row['test_defects']} defects, {row['with_masks']} of them with masks"
        )


def _counts(category: "Category") -> dict[str, Any]:
    defective = [sample for sample in category.test if sample.anomalous]
    return {
        "category": category.name,
        "train_good": len(category.train),
        "test_good": sum(sample.anomalous is False for sample in category.test),
        "test_defects": len(defective),
        "with_masks": sum(bool(sample.masks) for sample in defective),
    }
