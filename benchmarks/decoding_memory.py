"""Memory at its highest while a picture file is decoded, in bytes a pixel: writes trust/decoding_memory.md.

    python3 scripts/bench decoding_memory

Files of just under the 50 million pixels that `max_pixels` allows by default (WebP counts double) are made one by one,
and each is read in a process of its own. What that process holds before is taken off; the file's own bytes count.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful.evaluation.environment import commit

OUT = Path(__file__).parent / "trust" / "decoding_memory.md"
SIDE, WEBP_SIDE = 7071, 5000
Make = Callable[[Path, int], None]

READ = """
import sys, time
from PIL import Image
from handful.evaluation.peak_memory import peak_mb, reset_peak
from handful.data.images import read_picture
Image.init()
reset_peak()
begin, before = time.perf_counter(), peak_mb()
picture = read_picture(sys.argv[1], detail=int(sys.argv[2]) or None)
print(peak_mb() - before, time.perf_counter() - begin)
"""


def values(side: int, channels: int, kind: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    """Slopes and edges: (side, side) or (side, side, channels)."""
    slope = ((np.arange(side, dtype=np.uint32) * 7)[None] + (np.arange(side, dtype=np.uint32) * 3)[:, None]) // 16
    grey = (slope % (np.iinfo(kind).max + 1)).astype(kind)
    return grey if channels == 1 else np.stack([grey] * channels, 2)


def by_pillow(channels: int, *, deep: bool = False, turned: bool = False, **options: Any) -> Make:
    def make(path: Path, side: int) -> None:
        image = Image.fromarray(values(side, channels, np.uint16 if deep else np.uint8))
        if turned:
            options["exif"] = Image.Exif()
            options["exif"][0x0112] = 6  # a quarter
        image.save(path, **options)

    return make


def by_opencv(channels: int) -> Make:
    def make(path: Path, side: int) -> None:
        import cv2

        cv2.imwrite(str(path), values(side, channels, np.uint16), [cv2.IMWRITE_PNG_COMPRESSION, 1])

    return make


def by_tifffile(path: Path, side: int) -> None:
    import tifffile

    tifffile.imwrite(path, values(side, 3, np.uint16), photometric="rgb", rowsperstrip=64)


KINDS: dict[str, tuple[str, Make]] = {
    "PNG, grey": ("png", by_pillow(1, compress_level=1)),
    "PNG, colour": ("png", by_pillow(3, compress_level=1)),
    "PNG, colour, turned upright": ("png", by_pillow(3, turned=True, compress_level=1)),
    "PNG, colour with opacity": ("png", by_pillow(4, compress_level=1)),
    "PNG, grey of 16 bits": ("png", by_pillow(1, deep=True, compress_level=1)),
    "PNG, colour of 16 bits": ("png", by_opencv(3)),
    "PNG, colour of 16 bits with opacity": ("png", by_opencv(4)),
    "JPEG": ("jpg", by_pillow(3)),
    "WebP": ("webp", by_pillow(3, method=0)),
    "WebP with opacity": ("webp", by_pillow(4, method=0)),
    "TIFF, colour": ("tif", by_pillow(3)),
    "TIFF, colour with opacity": ("tif", by_pillow(4)),
    "TIFF, colour of 16 bits": ("tif", by_tifffile),
    "JPEG 2000, grey": ("jp2", by_pillow(1)),
    "JPEG 2000, colour": ("jp2", by_pillow(3)),
    "JPEG 2000, colour, in tiles": ("jp2", by_pillow(3, tile_size=(1024, 1024))),
    "JPEG 2000, colour with opacity": ("jp2", by_pillow(4)),
    "BMP": ("bmp", by_pillow(3)),
    "GIF": ("gif", by_pillow(1)),
    "PNM": ("ppm", by_pillow(3)),
}


def main() -> None:
    rows = ["| file | bytes a pixel | GB at the limit | seconds |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for name, (suffix, make) in {**KINDS, "JPEG, reduced to about 320 pixels": KINDS["JPEG"]}.items():
            path, side = Path(folder, f"picture.{suffix}"), WEBP_SIDE if suffix == "webp" else SIDE
            make(path, side)
            command = [sys.executable, "-c", READ, str(path), "320" if "reduced" in name else "0"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            megabytes, seconds = map(float, done.stdout.split())
            path.unlink()
            rows.append(f"| {name} | {1e6 * megabytes / side**2:.1f} | {megabytes / 1000:.2f} | {seconds:.1f} |")
            print(rows[-1], file=sys.stderr, flush=True)
    lines = [
        "# Memory while a file is decoded",
        f"`python3 scripts/bench decoding_memory`, code of {commit()}. Files of {SIDE} x {SIDE} pixels, WebP of "
        f"{WEBP_SIDE} x {WEBP_SIDE}, the most that `max_pixels` allows by default.",
        "\n".join(rows),
    ]
    OUT.write_text("\n\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
