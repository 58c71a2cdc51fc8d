"""The words of messages; each error is tested where it is raised."""

import pytest

from handful.errors import number_of


@pytest.mark.parametrize(("count", "said"), [(0, "0 good pictures"), (1, "1 good picture"), (12, "12 good pictures")])
def test_a_number_stands_with_its_noun(count, said):
    assert number_of(count, "good picture") == said
