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
    narrow = upright.resize((width, upright.height), Image.Resampling.BICUBIC)  # across and then down, as Handful does
    resized = np.asarray(narrow.resize((width, height), Image.Resampling.BICUBIC), np.float32)
session = onnxruntime.InferenceSession(folder / "model.onnx")
heatmap, (score,) = session.run(["map", "score"], {"image": resized.transpose(2, 0, 1)[None] / 255})
calibrated = (float(score) - inspector["typical"]) / (inspector["threshold"] - inspector["typical"])
print("DEFECT" if float(score) > inspector["threshold"] else "OK", f"{calibrated:.4f}")
