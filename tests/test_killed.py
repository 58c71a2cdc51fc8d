"""A verb that is ended leaves the old or the new and says so; `scripts/fuzz --kills` ends many more."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from handful.cli.main import main

FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals of this kind")


def test_verbs_that_are_killed_at_random_moments_leave_the_old_or_the_new():
    done = subprocess.run([sys.executable, FUZZ, "--kills", "11"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_verb_says_so_and_leaves_nothing(saved, tmp_path, picture_factory, number, code):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    image = Image.fromarray(picture_factory(0)).resize((800, 800))
    for count in range(40):
        image.save(pictures / f"{count:02d}.png")
    command = [sys.executable, "-m", "handful", "inspect", saved, pictures, "--report", tmp_path / "report"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()  # the first verdict: it is in the middle of them
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == code
    assert err.splitlines()[-1] == "handful: interrupted."
    assert not (tmp_path / "report").exists()
    assert len(out.splitlines()) < 39


def test_a_second_sigterm_ends_at_once(tmp_path):
    """One may come while a long call into a library lets nothing else happen."""
    script = """
import signal, sys, time
from handful.cli.main import _interruptible
with _interruptible():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("cleaning", flush=True)
        time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.stdout.readline() == "cleaning\n"
    process.terminate()
    assert process.wait(30) == -signal.SIGTERM  # and does not sleep for a minute
    process.stdout.close()


def test_the_handler_of_signals_is_as_before(command_line, saved):
    before = signal.getsignal(signal.SIGTERM)
    assert command_line("info", saved)[0] == 0
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_command_line_runs_in_any_thread(saved, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["handful", "info", str(saved)])
    ended = []

    def run():
        with pytest.raises(SystemExit) as error:
            main()
        ended.append(error.value.code)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert (ended, capsys.readouterr().err) == ([0], "")
