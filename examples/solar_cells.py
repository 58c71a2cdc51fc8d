"""The main job on real pictures: teach an inspector from 4 good solar cells, inspect 80 others, judge its verdicts.

The pictures are the PyPI package elpv-dataset's (electroluminescence pictures of solar cells; Buerhop-Lutz et al.,
2018, CC BY-NC-SA 4.0): monocrystalline cells that experts called surely good or surely defective. Everything lands in
the folder `demo`.
"""

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

from handful.data.shots import draw
from handful.metrics import image_auroc

FOLDER = Path("demo")
CELLS = {"train/good": 20, "test/good": 40, "test/defective": 40}
HANDFUL = [sys.executable, "-m", "handful"]


def main() -> int:
    """0 where the job was done."""
    pictures = FOLDER / "solar_cells"
    lay_out(pictures)
    # Cells that are sorted out get a second look: five false alarms in a hundred are fine.
    options = ("--shots", "4", "--rate", "0.05")
    run("fit", f"{pictures}/train/good", *options, "--output", f"{FOLDER}/solar_cells.handful")
    answer = run(
        "inspect", f"{FOLDER}/solar_cells.handful", f"{pictures}/test", "--report", f"{FOLDER}/report", "--json"
    )
    *inspections, _ = (json.loads(line) for line in answer.splitlines())  # the last line counts them
    for inspection in inspections:
        path = Path(inspection["path"])
        print(f"{inspection['verdict']:<6} {inspection['score']:6.2f}  {path.parent.name}/{path.name}")

    truth = ["defective" in inspection["path"] for inspection in inspections]
    rejected = [inspection["verdict"] == "DEFECT" for inspection in inspections]
    caught = sum(is_bad and out for is_bad, out in zip(truth, rejected, strict=True))
    alarms = sum(out and not is_bad for is_bad, out in zip(truth, rejected, strict=True))
    auroc = image_auroc(truth, [inspection["score"] for inspection in inspections])
    print(f"\n{caught} of {sum(truth)} defective cells rejected, {alarms} of {len(truth) - sum(truth)} good ones")
    print(f"image AUROC {100 * auroc:.1f} %")
    print(f"report      {(FOLDER / 'report' / 'index.html').resolve()}")
    return 0


def lay_out(folder: Path) -> None:
    """Copy the drawn cells out of the package: folder/train/good, test/good and test/defective."""
    found = importlib.util.find_spec("elpv_dataset")
    if found is None or not found.submodule_search_locations:
        sys.exit("The demo needs pictures; run it as: python3 scripts/demo")
    source = Path(found.submodule_search_locations[0], "data")
    with (source / "labels.csv").open() as file:
        rows = [row for row in csv.reader(file, delimiter=" ", skipinitialspace=True) if row]
    cells = {  # the probability of a defect as the experts gave it → file names
        probability: sorted(row[0] for row in rows if row[-1] == "mono" and float(row[1]) == probability)
        for probability in (0.0, 1.0)
    }
    good = draw(cells[0.0], shots=CELLS["train/good"] + CELLS["test/good"], seed=0)
    drawn = {
        "train/good": good[: CELLS["train/good"]],
        "test/good": good[CELLS["train/good"] :],
        "test/defective": draw(cells[1.0], shots=CELLS["test/defective"], seed=0),
    }
    shutil.rmtree(folder, ignore_errors=True)
    for place, names in drawn.items():
        (folder / place).mkdir(parents=True)
        for name in names:
            shutil.copy(source / name, folder / place)


def run(*arguments: str) -> str:
    """Show a command, run it, and return what it printed; verdicts' exit code 1 is no failure."""
    print(f"$ handful {' '.join(arguments)}", flush=True)
    done = subprocess.run([*HANDFUL, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode > 1:
        sys.exit(done.returncode)
    if "--json" not in arguments:
        print(done.stdout)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
