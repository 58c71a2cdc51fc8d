"""The highest resident memory of the process since a reset."""

import sys
from contextlib import suppress
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Reset the peak on Linux; on other systems the peak counts from the start of the process."""
    with suppress(OSError):
        _RESET.write_text("5")


def peak_mb() -> float | None:
    """The megabytes (10^6 bytes) of resident memory at the peak; None on Windows."""
    with suppress(OSError):
        lines = _STATUS.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
    if sys.platform == "win32":
        return None
    import resource  # absent on Windows

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1e6 if sys.platform == "darwin" else used * 1024 / 1e6
