"""The README's commands and code run as they stand there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.fixture
def parts(tmp_path):
    """The folders that the README speaks of: good/ and incoming/, the second picture there defective."""
    for folder, count in (("good", 4), ("incoming", 2)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            generator = np.random.default_rng([number, len(folder)])
            pixels = (140 + generator.normal(0, 8, (96, 96, 3))).clip(0, 255).astype(np.uint8)
            if folder == "incoming" and number == 1:
                pixels[30:50, 40:70] = 10
            Image.fromarray(pixels).save(tmp_path / folder / f"{number + 1:03d}.jpg")
    return tmp_path


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_first_session_gives_what_it_shows(parts):
    (session,) = blocks("console")
    commands = [line.removeprefix("$ ") for line in session.splitlines() if line.startswith("$ ")]
    assert [command.split()[1] for command in commands] == ["fit", "inspect"]
    outputs = []
    for command in commands:
        arguments = shlex.split(command)[1:]
        done = subprocess.run([sys.executable, "-m", "handful", *arguments], cwd=parts, capture_output=True, text=True)
        outputs.append((done.returncode, done.stdout + done.stderr))
    assert [code for code, _ in outputs] == [0, 1]
    # Numbers and places aside, every word and line of the session is what was printed.
    shown = [_shape(line) for line in session.splitlines() if not line.startswith("$ ")]
    printed = [_shape(line) for _, output in outputs for line in output.splitlines()]
    for line in shown:
        assert any(other.startswith(line.removesuffix(" …")) for other in printed), (line, printed)


def _shape(line):
    line = re.sub(r"\s+", " ", re.sub(r"-?\d+(\.\d+)?", "#", line)).strip()
    return re.sub(r" and # more$", "", line)


def test_the_python_code_runs(parts):
    (code,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", code], cwd=parts, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["OK", "DEFECT"]


def test_the_scripts_it_names_are_there():
    names = re.findall(r"python3 scripts/(\w+)", README)
    assert {"demo", "test"} <= set(names)
    assert all((ROOT / "scripts" / name).is_file() for name in names)


def test_ci_runs_the_readmes_test_command():
    assert "exec python3 scripts/test\n" in (ROOT / ".ci" / "run").read_text()
    assert "python3 scripts/test" in README


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md"]:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
            linked = page.parent / target if target else page
            assert linked.exists(), f"{page.name} links to {target}"
            if anchor:
                assert anchor in anchors(linked.read_text()), f"{page.name} links to {target}#{anchor}"


def anchors(text):
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
