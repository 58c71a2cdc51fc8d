import subprocess
import sys

PROBE = """
import sys
import handful.backbones.openvino_engine as engine
assert "openvino" in sys.modules
import openvino.tools.ovc.telemetry_utils as telemetry
assert telemetry.tm.__name__.endswith("telemetry_stub"), telemetry.tm.__name__
import importlib
assert importlib.util.find_spec("openvino_telemetry"), "the package itself stays importable"
print("silent")
"""


def test_importing_openvino_reports_to_nobody():
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    assert done.stdout == "silent\n", done.stderr
