import torch

from handful.ops.views import _moved, mild_views


def test_views_are_mild_different_and_always_the_same():
    image = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))
    views = mild_views(image, 7)
    assert torch.equal(views[0], image)
    assert all(torch.equal(one, other) for one, other in zip(views, mild_views(image, 7), strict=True))
    assert len({float(view.sum()) for view in views}) == 7
    assert all(view.shape == image.shape and 0 <= float(view.min()) and float(view.max()) <= 1 for view in views)


def test_fewer_views_are_the_first_ones():
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert len(mild_views(image, 3)) == 3
    assert torch.equal(mild_views(image, 7)[2], mild_views(image, 3)[2])


def test_a_quarter_turn_of_an_oblong_picture_keeps_its_proportions():
    image = torch.zeros(3, 60, 120)
    image[:, 28:32, 50:70] = 1  # a bar 20 wide, 4 high, in the middle
    turned = _moved(image, degrees=90)
    middle = turned[0, :, 40:80]  # beyond it, mirrored borders come into view
    rows = middle.sum(1) > 0.5
    columns = middle.sum(0) > 0.5
    assert abs(int(rows.sum()) - 20) <= 2
    assert abs(int(columns.sum()) - 4) <= 2
