"""OpenVINO, imported so that it does not call home.

openvino reports every import and conversion over the network unless its telemetry package is absent, so that package is
hidden while openvino is imported.
"""

import sys

_hidden = sys.modules.get("openvino_telemetry")
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
try:
    import openvino
finally:
    if _hidden is None:
        del sys.modules["openvino_telemetry"]
    else:
        sys.modules["openvino_telemetry"] = _hidden

__all__ = ["openvino"]
