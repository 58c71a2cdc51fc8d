"""What `fuzz` changes: a small picture in every format and kind, the smallest data set of each layout, an inspector."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 48
PICTURES, INSPECTOR = "pictures", "part.handful"  # of the folder that `make_seeds` makes
META = '{"img_path": "%s", "mask_path": "%s", "specie_name": "%s", "anomaly": %d, "cls_name": "gear"}'
# By layout, its files: a text, or the name of a picture in `pictures`. Folders alone make the other layouts.
DATASETS: dict[str, dict[str, str]] = {}


def drawing(seed: int = 0, *, side: int = SIDE) -> NDArray[np.uint8]:
    """A bright disc with a texture on a dark ground: (side, side, 3)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    grey = np.where(np.hypot(x, y) < 0.36, 150 + 25 * np.sin(40 * x) + random.normal(0, 9, x.shape), 30 + 20 * y)
    drawn: NDArray[np.uint8] = (grey[:, :, None] * np.array([1.0, 0.9, 0.75])).clip(0, 255).astype(np.uint8)
    return drawn


def pictures() -> dict[str, bytes]:
    """A small picture in every format, mode and compression that Pillow, tifffile, imagecodecs and OpenCV write."""
    rgb = drawing()
    return {**_by_pillow(rgb), **_by_tifffile(rgb), **_by_imagecodecs(rgb), **_by_opencv(rgb)}


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _by_pillow(rgb: NDArray[np.uint8]) -> dict[str, bytes]:
    image, grey = Image.fromarray(rgb), Image.fromarray(rgb[:, :, 0])
    deep = Image.fromarray(rgb[:, :, 0].astype(np.uint16) << 4)
    clear = Image.fromarray(np.dstack([rgb, rgb[:, :, :1]]))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    made = {
        "rgb.png": _saved(image, "PNG"),
        "grey.png": _saved(grey, "PNG"),
        "palette.png": _saved(image.quantize(16), "PNG", transparency=3),
        "bits.png": _saved(grey.convert("1"), "PNG"),
        "clear.png": _saved(clear, "PNG"),
        "deep.png": _saved(deep, "PNG"),
        "moving.png": _saved(image, "PNG", save_all=True, append_images=[image.rotate(90)]),
        "turned.jpg": _saved(image, "JPEG", exif=exif, quality=90),
        "grey.jpg": _saved(grey, "JPEG"),
        "progressive.jpg": _saved(image, "JPEG", progressive=True),
        "cmyk.jpg": _saved(image.convert("CMYK"), "JPEG"),
        "rgb.bmp": _saved(image, "BMP"),
        "palette.bmp": _saved(image.quantize(16), "BMP"),
        "bits.bmp": _saved(grey.convert("1"), "BMP"),
        "lossy.webp": _saved(image, "WEBP"),
        "lossless.webp": _saved(clear, "WEBP", lossless=True),
        "moving.webp": _saved(image, "WEBP", save_all=True, append_images=[image.rotate(90)]),
        "still.gif": _saved(image, "GIF"),
        "moving.gif": _saved(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
        "rgb.ppm": _saved(image, "PPM"),
        "grey.pgm": _saved(grey, "PPM"),
        "bits.pbm": _saved(grey.convert("1"), "PPM"),
        "rgb.jp2": _saved(image, "JPEG2000"),
        "deep.jp2": _saved(deep, "JPEG2000"),
    }
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        made[f"{compression}.tif"] = _saved(image, "TIFF", compression=compression)
    made["group4.tif"] = _saved(grey.convert("1"), "TIFF", compression="group4")
    made["float.tif"] = _saved(grey.convert("F"), "TIFF")
    return made


def _by_tifffile(rgb: NDArray[np.uint8]) -> dict[str, bytes]:
    import tifffile

    deep = rgb.astype(np.uint16) * 257
    ways: dict[str, tuple[NDArray[np.uint8] | NDArray[np.uint16], dict[str, Any]]] = {
        "grey16.tiff": (deep[:, :, 0], {}),
        "rgb16.tiff": (deep, {}),
        "planes16.tiff": (deep.transpose(2, 0, 1), {"planarconfig": "separate", "photometric": "rgb"}),
        "big_endian.tiff": (deep, {"byteorder": ">"}),
        "white_is_zero.tiff": (rgb[:, :, 0], {"photometric": "miniswhite"}),
        "tiles.tiff": (rgb, {"tile": (16, 16), "compression": "zlib", "predictor": True}),
        "pages.tiff": (np.stack([rgb, rgb[::-1]]), {"photometric": "rgb"}),
        "bigtiff.tiff": (rgb, {"bigtiff": True}),
    }
    made = {}
    for name, (array, options) in ways.items():
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, **options)
        made[name] = buffer.getvalue()
    return made


def _by_imagecodecs(rgb: NDArray[np.uint8]) -> dict[str, bytes]:
    import imagecodecs

    deep = rgb.astype(np.uint16) * 257
    return {
        "deep_rgb.png": bytes(imagecodecs.png_encode(deep)),
        "lossless.j2k": bytes(imagecodecs.jpeg2k_encode(rgb)),
        "deep_rgb.jp2": bytes(imagecodecs.jpeg2k_encode(deep)),
        "subsampled.jpeg": bytes(imagecodecs.jpeg8_encode(rgb, subsampling="420")),
    }


def _by_opencv(rgb: NDArray[np.uint8]) -> dict[str, bytes]:
    import cv2

    deep = rgb.astype(np.uint16) * 257
    return {
        f"opencv{suffix}": cv2.imencode(suffix, array)[1].tobytes()
        for suffix, array in ((".png", deep), (".tiff", deep), (".pgm", deep[:, :, 0]), (".bmp", rgb), (".webp", rgb))
    }


def make_seeds(folder: Path) -> None:
    """Write every picture, and a small inspector with its graph, fitted on three drawings with random weights."""
    from handful.detector import Detector

    (folder / PICTURES).mkdir(parents=True)
    for name, data in pictures().items():
        (folder / PICTURES / name).write_bytes(data)
    detector = Detector(backbone="test_efficientnet", weights="random", size=64, device="cpu")
    detector.fit([drawing(seed, side=96) for seed in range(3)])
    detector.set_rate(0.02)
    detector.set_threshold(2 * detector.calibration.threshold)
    detector.save(folder / INSPECTOR)


DATASETS |= {
    "manifest": {
        "manifest.csv": "path,label,split,mask,kind,category\na.png,0,train,,,nut\nb.png,bad,test,m.png|n.png,cut,nut\n"
        "c.png,good,test,,,nut\n",
        "a.png": "rgb.png",
        "b.png": "turned.jpg",
        "c.png": "grey.png",
        "m.png": "bits.png",
    },
    "manifest lines": {
        "manifest.jsonl": '{"path": "a.png", "label": 0, "split": "train"}\n'
        '{"path": "b.png", "label": 1, "split": "test", "mask": "m.png", "kind": null, "category": "nut"}\n'
        '{"path": "c.png", "label": "ok", "split": "test"}',
        "a.png": "rgb.png",
        "b.png": "turned.jpg",
        "c.png": "grey.png",
        "m.png": "bits.png",
    },
    "meta": {
        "meta.json": f'{{"train": {{"gear": [{META % ("a.png", "", "good", 0)}]}}, "test": {{"gear": ['
        f"{META % ('b.png', 'm.png', 'cut', 1)}, {META % ('c.png', '', 'good', 0)}]}}}}",
        "a.png": "rgb.png",
        "b.png": "turned.jpg",
        "c.png": "grey.png",
        "m.png": "bits.png",
    },
    "visa": {
        "split_csv/1cls.csv": "object,split,label,image,mask\n"
        "pcb1,train,normal,pcb1/Data/Images/Normal/0.JPG,\n"
        "pcb1,test,normal,pcb1/Data/Images/Normal/1.JPG,\n"
        "pcb1,test,anomaly,pcb1/Data/Images/Anomaly/0.JPG,pcb1/Data/Masks/Anomaly/0.png\n",
        "pcb1/Data/Images/Normal/0.JPG": "turned.jpg",
        "pcb1/Data/Images/Normal/1.JPG": "grey.jpg",
        "pcb1/Data/Images/Anomaly/0.JPG": "progressive.jpg",
        "pcb1/Data/Masks/Anomaly/0.png": "bits.png",
    },
    "loco": {
        "pushpins/train/good/0.png": "rgb.png",
        "pushpins/test/good/0.png": "grey.png",
        "pushpins/test/logical_anomalies/0.png": "clear.png",
        "pushpins/ground_truth/logical_anomalies/0/000.png": "bits.png",
        "pushpins/defects_config.json": '[{"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 1, '
        '"relative_saturation": false}, {"defect_name": "more", "pixel_value": 254, "saturation_threshold": 0.5, '
        '"relative_saturation": true}]',
    },
    "tree": {
        "nut/train/good/0.png": "rgb.png",
        "nut/test/good/0.png": "grey.png",
        "nut/test/cut/0.png": "clear.png",
        "nut/ground_truth/cut/0_mask.png": "bits.png",
    },
}
