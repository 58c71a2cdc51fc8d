"""The import of OpenVINO with its telemetry switched off.

OpenVINO reports every import and conversion over the network if the package openvino_telemetry can be imported, so that
package is hidden while OpenVINO is imported.
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
