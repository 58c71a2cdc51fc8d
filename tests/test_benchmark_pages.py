"""The pages of benchmarks/: each is in the index, and each figure is of a commit that anyone can check out."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "benchmarks").rglob("*.md"))
INDEX = ROOT / "benchmarks" / "README.md"
COMMIT = re.compile(r"\b(?:code (?:of|at)|at|commit|measured at|worked out from .* at) ([0-9a-f]{7,40})(-dirty)?\b")


def links(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    return {(page.parent / target).resolve() for target in targets if "://" not in target}


def test_every_page_is_reached_from_the_index():
    reached, waiting = set(), {INDEX}
    while waiting:
        reached |= waiting
        waiting = {page for one in waiting for page in links(one) if page.suffix == ".md"} & set(PAGES) - reached
    assert not set(PAGES) - reached


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "benchmarks")))
def test_its_figures_are_of_commits_in_history_with_a_clean_tree(page):
    git = ["git", "-C", str(ROOT)]
    if subprocess.run([*git, "rev-parse", "--is-shallow-repository"], capture_output=True).stdout != b"false\n":
        pytest.skip("needs the whole history of the repository")
    for commit, dirty in COMMIT.findall(page.read_text()):
        assert not dirty, f"{commit} with changes that no commit holds"
        ancestor = subprocess.run([*git, "merge-base", "--is-ancestor", commit, "HEAD"], capture_output=True)
        assert ancestor.returncode == 0, f"{commit} is not in history"
