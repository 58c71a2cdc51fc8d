"""The pages of benchmarks/: each is in the index, and each figure is of a commit that anyone can check out."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "benchmarks").rglob("*.md"))
INDEX = ROOT / "benchmarks" / "README.md"
CELLS = sorted((ROOT / "benchmarks").rglob("environment.json"))
COMMIT = re.compile(
    r"\b(?:code (?:of|at)|at|commit|measured at|worked out from .* at)(?:\": \")? ?([0-9a-f]{7,40})(-dirty)?\b"
)
COLUMN = re.compile(r"\| ([0-9a-f]{10}) \| \d{4}-\d\d-\d\d \|$", re.M)  # of the index


def links(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    return {(page.parent / target).resolve() for target in targets if "://" not in target}


def test_every_page_is_reached_from_the_index():
    reached, waiting = set(), {INDEX}
    while waiting:
        reached |= waiting
        waiting = {page for one in waiting for page in links(one) if page.suffix == ".md"} & set(PAGES) - reached
    assert not set(PAGES) - reached


def name_of(page):
    return page.relative_to(ROOT / "benchmarks").as_posix()


def test_the_index_names_commits_of_its_pages():
    for line in INDEX.read_text().splitlines():
        if commit := COLUMN.search(line):
            page = ROOT / "benchmarks" / re.search(r"\]\(([^)]+)\)", line)[1]
            assert any(commit[1][:7] in place.read_text() for place in (page, *links(page)) if place.is_file()), line


@pytest.mark.parametrize("page", [*PAGES, *CELLS], ids=name_of)
def test_its_figures_are_of_commits_in_history_with_a_clean_tree(page):
    git = ["git", "-C", str(ROOT)]
    if subprocess.run([*git, "rev-parse", "--is-shallow-repository"], capture_output=True).stdout != b"false\n":
        pytest.skip("needs the whole history of the repository")
    measured = COMMIT.findall(page.read_text()) + [(commit, "") for commit in COLUMN.findall(page.read_text())]
    assert not any(dirty for _, dirty in measured), "measured with changes in the tree that no commit holds"
    for commit, _ in measured:
        ancestor = subprocess.run([*git, "merge-base", "--is-ancestor", commit, "HEAD"], capture_output=True)
        assert ancestor.returncode == 0, f"{commit} is not in history"
