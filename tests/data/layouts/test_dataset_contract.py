"""What every reader of labelled data sets promises."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handful.data.layouts.registry import LAYOUTS, open_dataset
from handful.data.layouts.unused import unused
from handful.data.masks import read_regions

GOOD_ENTRY = {"mask_path": "", "specie_name": "good", "anomaly": 0, "cls_name": "gear"}
TREES = {  # the smallest data set of each layout; a text is a file's content, None a picture, True a mask
    "mvtec": {
        "pill/train/good/0.png": None,
        "pill/test/good/0.png": None,
        "pill/test/crack/0.png": None,
        "pill/ground_truth/crack/0_mask.png": True,
    },
    "visa": {
        "split_csv/1cls.csv": "object,split,label,image,mask\n"
        "pcb1,train,normal,pcb1/Data/Images/Normal/0.JPG,\n"
        "pcb1,test,anomaly,pcb1/Data/Images/Anomaly/0.JPG,pcb1/Data/Masks/Anomaly/0.png\n",
        "pcb1/Data/Images/Normal/0.JPG": None,
        "pcb1/Data/Images/Anomaly/0.JPG": None,
        "pcb1/Data/Masks/Anomaly/0.png": True,
    },
    "btad": {
        "02/train/ok/0.png": None,
        "02/test/ok/0.png": None,
        "02/test/ko/0.png": None,
        "02/ground_truth/ko/0.png": True,
    },
    "mpdd": {
        "tubes/train/good/0.png": None,
        "tubes/test/good/0.png": None,
        "tubes/test/flattening/0.png": None,
        "tubes/ground_truth/flattening/0_mask.png": True,
    },
    "loco": {
        "pushpins/train/good/0.png": None,
        "pushpins/test/good/0.png": None,
        "pushpins/test/logical_anomalies/0.png": None,
        "pushpins/ground_truth/logical_anomalies/0/000.png": True,
        "pushpins/ground_truth/logical_anomalies/0/001.png": True,
        "pushpins/defects_config.json": '[{"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 1, '
        '"relative_saturation": false}]',
    },
    "mvtec3d": {
        "tire/train/good/rgb/0.png": None,
        "tire/test/good/rgb/0.png": None,
        "tire/test/cut/rgb/0.png": None,
        "tire/test/cut/gt/0.png": True,
    },
    "kolektor": {
        "train/1.png": None,
        "train/1_GT.png": False,
        "test/2.png": None,
        "test/2_GT.png": True,
    },
    "brats": {
        "brain/train/good/0.png": None,
        "brain/test/good/0.png": None,
        "brain/test/tumour/0.png": None,
        "brain/ground_truth/tumour/0_mask.png": True,
    },
    "shanghaitech": {
        "training/frames/01_001/0.jpg": None,
        "testing/frames/01_0014/0.jpg": None,
        "testing/test_frame_mask/01_0014.npy": np.ones(1),
        "testing/test_pixel_mask/01_0014/0.png": True,
    },
    "manifest": {
        "manifest.csv": "path,label,split,mask\na.png,0,train,\nb.png,1,test,m.png\n",
        "a.png": None,
        "b.png": None,
        "m.png": True,
    },
    "tree": {
        "gear/train/good/0.png": None,
        "gear/test/good/0.png": None,
        "gear/test/dent/0.png": None,
        "gear/ground_truth/dent/0.png": True,
        "cog/train/good/0.png": None,
        "cog/test/good/0.png": None,
    },
    "folder": {
        "good/0.png": None,
        "good/1.png": None,
        "dent/0.png": None,
        "masks/dent/0.png": True,
    },
    "meta": {
        "meta.json": json.dumps(
            {
                "train": {"gear": [{**GOOD_ENTRY, "img_path": "a.png"}]},
                "test": {
                    "gear": [
                        {**GOOD_ENTRY, "img_path": "b.png", "anomaly": 1, "specie_name": "dent", "mask_path": "m.png"}
                    ],
                },
            }
        ),
        "a.png": None,
        "b.png": None,
        "m.png": True,
    },
}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return request.param


@pytest.fixture
def root(tmp_path, layout):
    for name, content in TREES[layout].items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for junk in (path.parent / f"._{path.name}", path.parent / ".DS_Store"):
            junk.write_text("what a Mac leaves behind")
        if content is None:
            path.touch()
        elif isinstance(content, bool):
            Image.fromarray(np.full((4, 4), 255 * content, np.uint8)).save(path)
        elif isinstance(content, str):
            path.write_text(content)
        else:
            np.save(path, content)
    return tmp_path


def test_each_layout_has_its_tree():
    assert TREES.keys() == LAYOUTS.keys()


def test_a_tree_is_recognised_by_its_own_reader_and_no_other_before(root, layout):
    assert LAYOUTS[layout].detect(root)
    dataset = open_dataset(root)
    assert (dataset.layout, dataset.root) == (layout, str(root))
    assert dataset == open_dataset(root, layout=layout)


def test_categories_references_and_samples_are_in_order_and_there(root):
    dataset = open_dataset(root)
    names = [category.name for category in dataset.categories]
    assert names and names == sorted(set(names))
    for category in dataset.categories:
        tested = [sample.path for sample in category.test]
        assert category.train and list(category.train) == sorted(set(category.train))
        assert tested and tested == sorted(set(tested))
        assert not {*category.train} & {*tested}
        paths = [*category.train, *tested, *(mask for sample in category.test for mask in sample.masks)]
        assert all(isinstance(path, str) and Path(path).is_file() for path in paths)


def test_good_pictures_are_called_good_and_defects_have_their_masks(root):
    samples = [sample for category in open_dataset(root).categories for sample in category.test]
    assert any(sample.anomalous for sample in samples)
    for sample in samples:
        assert (sample.kind == "good") is not sample.anomalous
        assert bool(sample.masks) is sample.anomalous


def test_every_mask_can_be_read(root):
    for category in open_dataset(root).categories:
        for sample in category.test:
            regions = read_regions(sample, (8, 8), category.saturation)
            assert bool(regions) is bool(sample.masks)
            assert all(region.mask.all() for region in regions)


def test_sentences_are_sentences(root):
    for said in open_dataset(root).missing:
        assert said.endswith(".") and "\n" not in said


def test_every_file_is_used_or_named(root):
    hidden = {str(path) for path in root.rglob(".*")}
    assert {one.path for one in unused(open_dataset(root))} == hidden
    for name in ("extra.png", "notes.txt"):
        (root / name).touch()
    named = {one.path: one.reason for one in unused(open_dataset(root)) if one.path not in hidden}
    assert named == {str(root / "extra.png"): "used by no category", str(root / "notes.txt"): "no picture"}
