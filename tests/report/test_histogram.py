import pytest

from handful.report.histogram import HIGHEST, LOWEST, WIDTH, Histogram


def counted(*scores):
    histogram = Histogram()
    for score, verdict in scores:
        histogram.add(score, verdict)
    return histogram


def places(histogram):
    return [number for number, bar in enumerate(histogram.bars) if bar.count]


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (-9.0, "up to -1"),
        (-1.0, "up to -1"),
        (-0.99, "above -1 up to -0.75"),
        (-0.75, "above -1 up to -0.75"),
        (0.99, "above 0.75 up to 1"),
        (1.0, "above 0.75 up to 1"),
        (1.0000001, "above 1 up to 1.25"),
        (4.0, "above 3.75 up to 4"),
        (4.01, "above 4"),
        (1e30, "above 4"),
    ],
)
def test_a_bin_holds_its_upper_edge(score, words):
    assert [bar.words for bar in counted((score, "OK")).bars if bar.count] == [words]


def test_a_score_at_the_threshold_lies_left_of_the_line_and_one_above_it_right():
    histogram = counted((1.0, "OK"), (1.01, "DEFECT"))
    ok, defect = places(histogram)
    assert (ok + 1) / len(histogram.bars) == pytest.approx(histogram.threshold_at)
    assert defect == ok + 1


def test_bins_are_the_same_whatever_the_scores():
    words = [bar.words for bar in counted((0.1, "OK")).bars]
    assert words == [bar.words for bar in counted((-50.0, "OK"), (70.0, "DEFECT")).bars]
    assert len(words) == (HIGHEST - LOWEST) / WIDTH + 2


def test_verdicts_of_a_bin_are_stacked():
    bars = counted((0.1, "RETAKE"), (0.1, "OK"), (0.2, "OK"), (3.0, "DEFECT")).bars
    assert [bar.parts for bar in bars if bar.count] == [(("OK", 2, 0), ("RETAKE", 1, 2)), (("DEFECT", 1, 0),)]
    assert [bar.of("RETAKE") for bar in bars if bar.count] == [1, 0]


def test_words_say_how_many_lie_on_which_side():
    assert counted().words == ""
    assert counted((1.0, "OK")).words.startswith("1 score: 1 at or below the threshold of 1, 0 above it;")
    histogram = counted((-0.5, "OK"), (0.25, "OK"), (3.0, "DEFECT"))
    assert histogram.words == (
        "3 scores: 2 at or below the threshold of 1, 1 above it; lowest -0.50, median 0.25, highest 3.00."
    )
