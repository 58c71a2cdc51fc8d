"""`handful papers` and `handful bench --paper`: a plan, and each paper's table made on miniatures of its data sets."""

import csv
import json
import shutil
import subprocess
import sys

import pytest

from handful.evaluation.papers import PAPERS, read_paper

SMALL = ("--weights", "random", "--size", "64", "--engine", "torch", "--device", "cpu", "--no-sheets", "--seeds", "0")
NETWORK = ("--backbone", "test_resnet", *SMALL)
QUICK = {  # the shots of each paper's runs that a miniature can have, few categories, and the shortest training
    "fastrecon": "--shots 2 --categories bottle tubes",
    "reb": "--shots 1 all --categories bottle 01 juice_bottle --set updates=1 sources=1 accumulate=1 size=32",
    "coft-ad": "--shots 1 --categories bottle tubes --set updates=1 pictures=4 size=32",
    "resad": "--shots 4 --categories bottle pcb1 01 rope brain "
    "--set updates=1 pictures=2 places=16 blocks=1 condition=4",
    "fasl": "--shots 1 --categories bottle pcb1 --size 104 --set updates=1 pictures=2 pool=2 shots=2",
    "patchcore": "--shots 1 all --categories bottle pcb1",
    "winclip": "--shots 0 1 --categories bottle pcb1 --size 32",
}
MADE = {  # by run, the data sets whose categories are asked for
    "fastrecon": {"few": ["mvtec_ad", "mpdd"]},
    "reb": {
        "mvtec-resnet18": ["mvtec_ad"],
        "loco-resnet18": ["mvtec_loco"],
        "btad-resnet18": ["btad"],
        "few": ["mvtec_ad"],
    },
    "coft-ad": {"real": ["mvtec_ad", "mpdd"], "corrupted": ["mvtec_ad_noise", "mvtec_ad_blur"]},
    "resad": {
        "from-mvtec": ["visa", "btad", "mvtec_3d", "brats", "shanghaitech"],
        "from-visa": ["mvtec_ad"],
        "ablation": ["mvtec_ad"],
    },
    "fasl": {"from-mvtec": ["visa"], "from-visa": ["mvtec_ad"]},
    "patchcore": {"few": ["mvtec_ad", "visa"], "full": ["mvtec_ad"]},
    "winclip": {"main": ["mvtec_ad", "visa"]},
}


def given(miniatures, *names):
    """Data sets as `--data` takes them."""
    return ["--data", *(f"{name}:{miniatures[name]}" for name in names)]


def table(out):
    with (out / "paper.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    """A hub's cache without any weights; its folder."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("name", PAPERS)
def test_every_paper_is_made_whole_on_miniatures(command_line, miniatures, tiny_clip, tmp_path, name):
    out, paper = tmp_path / "out", read_paper(name)
    backbone = tiny_clip if name == "winclip" else "test_resnet"
    options = (*given(miniatures, *paper.datasets), "--backbone", backbone, *SMALL, *QUICK[name].split(), "--out", out)
    code, lines, said = command_line("bench", "--paper", name, *options)
    assert code == 0, [line for line in lines if "FAILED" in line] or said
    found = table(out)
    assert {(line["run"], line["dataset"], line["variant"]) for line in found if line["ours"]} == {
        (run, dataset, variant)
        for run, datasets in MADE[name].items()
        for dataset in datasets
        for variant in paper.runs[run.partition("-resnet18")[0]].variants
    }
    assert all("other backbone; other weights; other size" in line["mark"] and not line["difference"] for line in found)
    assert {line["backbone"] for line in found} == {f"{backbone} (random weights)"}
    page = (out / "paper.md").read_text()
    assert page.startswith(f"# {paper.title}\n") and all(f"\n## {run}\n" in page for run in MADE[name])
    drawn = {f"{run}/{path.name}" for run in MADE[name] for path in (out / run).glob("figure-*.png")}
    assert drawn == ({"from-mvtec/figure-visa.png", "from-visa/figure-mvtec_ad.png"} if name == "fasl" else set())


def test_a_run_goes_on_where_it_was_and_tests_only_with_given_heads(command_line, miniatures, tmp_path):
    data, quick = (
        given(miniatures, "mvtec_ad", "visa"),
        ["--shots", "4", "--categories", "bottle", *QUICK["resad"].split()[8:]],
    )
    options = (*data, *NETWORK, *quick, "--runs", "from-visa", "--out", tmp_path / "out")
    assert command_line("bench", "--paper", "resad", *options)[0] == 0
    (head,) = (tmp_path / "out/heads").iterdir()
    written, results = head.stat().st_mtime_ns, tmp_path / "out/from-visa/results.csv"
    before = results.read_text()
    results.write_text(before.splitlines()[0] + "\n")  # as if killed after the training
    code, lines, said = command_line("bench", "--paper", "resad", *options)
    assert (code, said[:2]) == (0, ["run from-visa", "1 cell"]) and len(lines) == 1
    assert command_line("bench", "--paper", "resad", *options)[2][1] == "1 cell, 1 done before"
    assert head.stat().st_mtime_ns == written and head.name == "visa-full.safetensors"

    anew = [*options[:-1], tmp_path / "anew", "--heads", f"visa-full:{head}"]
    anew[: len(data)] = given(miniatures, "mvtec_ad")  # VisA is not needed for testing alone
    assert command_line("bench", "--paper", "resad", *anew)[0] == 0
    assert not (tmp_path / "anew/heads").exists()
    assert [line["ours"] for line in table(tmp_path / "anew")] == [line["ours"] for line in table(tmp_path / "out")]

    other = [text.replace("updates=1", "updates=2") for text in map(str, options)]
    code, _, said = command_line("bench", "--paper", "resad", *other)
    assert code == 2 and "must be trained by the settings asked for, got visa-full.safetensors of others" in said[-1]
    marked = [text.replace("updates=1", "updates=2") for text in map(str, anew)]
    assert command_line("bench", "--paper", "resad", *marked)[0] == 0
    assert all(line["mark"].count("other head visa-full") == 1 for line in table(tmp_path / "anew"))


def test_missing_data_and_weights_are_refused_unless_the_rest_is_asked_for(
    command_line, miniatures, no_weights, tmp_path
):
    data = given(miniatures, "mvtec_ad")
    code, lines, said = command_line("bench", "--paper", "fastrecon", *data, "--out", tmp_path / "out")
    sentence = (
        "handful: fastrecon needs all of its data and weights, got no mpdd, no weights of wide_resnet50_2.tv_in1k;"
    )
    assert (code, lines, len(said)) == (2, [], 1) and said[0].startswith(sentence) and not (tmp_path / "out").exists()
    code, _, said = command_line("bench", "--paper", "fastrecon", *data, "--available", "--out", tmp_path / "out")
    assert code == 2 and said[0].endswith("nothing can run without.")
    quick = (*NETWORK, "--shots", "2", "--out", tmp_path / "out")
    code, _, said = command_line("bench", "--paper", "fastrecon", *data, *quick)
    assert code == 2 and "got no mpdd; --plan says where from, --available runs the rest." in said[0]
    code, lines, _ = command_line("bench", "--paper", "fastrecon", *data, *quick, "--available")
    assert code == 0 and [line.split()[:2] for line in lines] == [["mvtec_ad", "bottle"], ["mvtec_ad", "tile"]]
    assert "\n- few, mpdd: the data set was not given.\n" in (tmp_path / "out/paper.md").read_text()


def test_a_plan_says_cells_missing_things_and_hours(command_line, miniatures, no_weights):
    code, lines, said = command_line("bench", "--paper", "reb", *given(miniatures, "mvtec_ad"), "--plan")
    assert (code, said) == (0, [])
    assert any(
        line.startswith("run mvtec-vgg11: vgg11_bn.tv_in1k at 256x256; mvtec_ad (2) categories") for line in lines
    )
    assert any(" = 36 cells, about " in line and line.startswith("run few") for line in lines)  # 2 x 6 shots x 3 seeds
    missing = [line for line in lines if line.startswith("missing: ")]
    assert [line.split()[2] for line in missing] == ["set", "set", "resnet18.tv_in1k:", "vgg11_bn.tv_in1k:"]
    assert "MVTec LOCO AD" in missing[0] and "--data mvtec_loco:FOLDER" in missing[0] and "BTAD" in missing[1]
    assert any(line.startswith("assumed: runs.few.seeds: ") for line in lines)
    assert "on this machine's processor" in lines[-1] and lines[-1].startswith("56 cells, about ")

    snapshot = no_weights / "models--timm--resnet18.tv_in1k/snapshots/0123"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    _, lines, _ = command_line("bench", "--paper", "reb", "--plan", "--json")
    runs = {row["run"]: row for row in map(json.loads, lines) if "run" in row}
    assert runs["few"]["cells"] == 270 and not runs["few"]["can_run"] and runs["few"]["hours"] > 1
    assert not any("weights resnet18" in text for text in json.loads(lines[-1])["missing"])
    assert any("weights vgg11_bn" in text for text in json.loads(lines[-1])["missing"])


def test_a_plan_says_what_a_given_data_set_lacks(command_line, miniatures, no_weights, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(miniatures["mvtec_ad"], half)
    shutil.rmtree(half / "tile/test")
    shutil.rmtree(half / "bottle/ground_truth")
    _, lines, _ = command_line("bench", "--paper", "fastrecon", "--data", f"mvtec_ad:{half}", "--plan")
    (said,) = [line for line in lines if line.startswith("incomplete: ")]
    assert said.startswith("incomplete: data set mvtec_ad: 14 of 15 categories cannot be used: cable, capsule, ")
    assert ", tile, " in said and "differ, the first: bottle: " in said and f"handful data check {half}" in said
    other = ("--data", f"mvtec_ad:{miniatures['visa']}")
    _, lines, _ = command_line("bench", "--paper", "coft-ad", *other, "--plan", "--json")
    (said,) = json.loads(lines[-1])["incomplete"]
    assert "15 of 15 categories cannot be used" in said and "categories of another data set: candle, pcb1;" in said
    _, lines, _ = command_line("bench", "--paper", "resad", *given(miniatures, "brats"), "--plan")
    assert not any(line.startswith("incomplete: ") for line in lines)


def test_the_table_of_another_paper_is_kept(command_line, miniatures, tmp_path):
    out = tmp_path / "out"
    fast = (*given(miniatures, "mvtec_ad", "mpdd"), *NETWORK, "--shots", "2", "--categories", "bottle", "--out", out)
    assert command_line("bench", "--paper", "fastrecon", *fast)[0] == 0
    page, options = (out / "paper.md").read_bytes(), (*given(miniatures, "mvtec_ad", "visa"), *NETWORK, "--shots", "1")
    code, lines, said = command_line("bench", "--paper", "patchcore", *options, "--out", out)
    assert (code, lines, len(said)) == (2, [], 1) and (out / "paper.md").read_bytes() == page
    assert "`--out` must be a folder without the table of another paper, got " in said[0]
    assert command_line("bench", "--paper", "fastrecon", *fast)[0] == 0
    (out / "paper.md").write_bytes(b"\xff a page of somebody else")
    code, _, said = command_line("bench", "--paper", "fastrecon", *fast)
    assert code == 2 and len(said) == 1 and "without the table of another paper" in said[0]


def test_a_table_names_the_runs_that_were_not_asked_for(command_line, miniatures, tmp_path):
    options = (*given(miniatures, "mvtec_ad", "visa"), *NETWORK, "--shots", "1", "--categories", "bottle")
    assert command_line("bench", "--paper", "patchcore", *options, "--out", tmp_path / "out")[0] == 0
    assert "\nNot run:\n\n- full: not asked for.\n\n## few\n" in (tmp_path / "out/paper.md").read_text()


def test_no_plan_imports_torch():
    program = (
        "import sys\n"
        "from handful.cli.main import main\n"
        f"for name in {PAPERS}:\n"
        "    sys.argv = ['handful', 'bench', '--paper', name, '--plan']\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as ended:\n"
        "        assert not ended.code, name\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines() if line.partition(":")[0] in PAPERS] == [
        *PAPERS
    ]


def test_papers_lists_the_seven_with_their_commands(command_line):
    code, lines, said = command_line("papers")
    assert (code, said) == (0, []) and [line.partition(":")[0] for line in lines if line[0] != " "] == [*PAPERS]
    _, lines, _ = command_line("papers", "--json")
    rows = {row["name"]: row for row in map(json.loads, lines)}
    assert rows["resad"]["datasets"] == ["visa", "btad", "mvtec_3d", "brats", "shanghaitech", "mvtec_ad"]
    assert rows["resad"]["shots"] == ["2", "4"] and rows["resad"]["backbones"] == ["wide_resnet50_2.racm_in1k"]
    assert rows["fasl"]["command"] == "handful bench --paper fasl --data mvtec_ad:FOLDER visa:FOLDER --out OUT"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--paper", "magic"], "`--paper` must be one of fastrecon, reb, coft-ad, resad, fasl, patchcore, winclip"),
        (["--paper", "reb", "--methods", "patchcore"], "`--methods` must be left out with --paper"),
        (["--paper", "reb", "--runs", "magic"], "`--runs` must have the names of reb's: mvtec, loco, btad, few,"),
        (["--paper", "reb", "--shots", "3"], "`--shots` must be among the shots of the runs asked for, got 3."),
        (
            ["--paper", "resad", "--heads", "visa-full:absent"],
            "`--heads` must be DATASET-HEAD:FILE, of a file that exists",
        ),
        (["--paper", "fastrecon", "--set", "updates=1"], "`--set` must be left out where nothing is trained"),
        (
            ["--paper", "fastrecon", "--data", "visa:{visa}"],
            "`--data` must have the names of fastrecon's: mvtec_ad, mpdd",
        ),
        (["--paper", "fastrecon"], "`--out` must be given, got none"),
        (["--plan"], "`--plan` must be left out without --paper"),
        (["--runs", "few"], "`--runs` must be left out without --paper"),
        ([], "`--data` must be given, got none"),
        (["--data", "visa:{visa}"], "`--out` must be given, got none"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(command_line, miniatures, options, sentence):
    code, lines, said = command_line("bench", *(option.format(visa=miniatures["visa"]) for option in options))
    assert (code, lines, len(said)) == (2, [], 1)
    assert sentence in said[0]
