"""Inspect one picture by an exported inspector, without Handful: python run_exported.py FOLDER PICTURE.

FOLDER is what `handful export NAME.handful -o FOLDER --format onnx` wrote; needs onnxruntime, numpy and pillow alone.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

folder, path = map(Path, sys.argv[1:])
inspector = json.loads((folder / "inspector.json").read_text("utf-8"))
height, width = inspector["preprocessing"]["size"]
draft = inspector["preprocessing"]["jpeg_draft"]
with Image.open(path) as picture:
    if picture.mode not in ("L", "RGB"):
        sys.exit(f"{path} must be grey or RGB of 8 bits, got {picture.mode}; inspector.json says how others are read.")
    picture.draft(None, (draft, draft))  # a large JPEG is decoded smaller, as Handful does
    upright = ImageOps.exif_transpose(picture).convert("RGB")
    across, down = upright.size
    part_height, part_width = height, width  # of the input, where the picture lies
    beyond = inspector["preprocessing"]["keeps_aspect_beyond"]
    apart = across / down * height / width
    if beyond is not None and not 1 / beyond <= apart <= beyond:  # another shape: it keeps its aspect
        scale = min(width / across, height / down)
        part_height, part_width = max(1, round(down * scale)), max(1, round(across * scale))
    narrow = upright.resize((part_width, upright.height), Image.Resampling.BICUBIC)  # across and then down
    resized = np.asarray(narrow.resize((part_width, part_height), Image.Resampling.BICUBIC), np.float32)
top, left = (height - part_height) // 2, (width - part_width) // 2
around = (top, height - part_height - top), (left, width - part_width - left), (0, 0)
resized = np.pad(resized, around, "symmetric")  # mirrored around
session = onnxruntime.InferenceSession(folder / "model.onnx")
raw_map, (raw_score,) = session.run(["raw_map", "raw_score"], {"image": resized.transpose(2, 0, 1)[None] / 255})
score = (float(raw_score) - inspector["typical"]) / (inspector["threshold"] - inspector["typical"])
print("DEFECT" if float(raw_score) > inspector["threshold"] else "OK", f"{score:.4f}")
