"""Sets the threshold of a saved inspector anew, without torch: backbone, method and references stay as they are."""

import os
from pathlib import Path

from handful.errors import SettingError
from handful.fitting.revisions import Basis, Correction, History, missed_again
from handful.inspection.threshold import Calibration, check_rate
from handful.saved import archive
from handful.saved.history import HISTORY_ENTRY, history_entry, history_of
from handful.saved.manifest import ignored_of, reading
from handful.version import __version__


class SavedCalibration:
    """The threshold of a saved inspector: what `Detector.set_rate` and `Detector.set_threshold` do, without torch.

        from handful.saved.recalibration import SavedCalibration

        saved = SavedCalibration("part.handful")
        correction = saved.set_rate(0.01)
        saved.save()
        print(correction.before.raw_threshold, correction.after.raw_threshold)

    The file is the same, to its digest, as a `Detector` would save.

    Args:
        path: of a saved inspector.

    Raises:
        InspectorError: if it is missing, damaged, altered, newer than this version, or no inspector.

    Attributes:
        history: all corrections so far.
        calibration: the threshold and its basis.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        manifest, calibration, self._entries = archive.read(self.path)
        self._saved_digest = self.digest = manifest["digest"]
        self._manifest = {name: value for name, value in manifest.items() if name not in ("digest", "format_version")}
        self._manifest["handful"] = __version__
        self.calibration = Calibration.from_dict(calibration)
        self.history = history_of(self._entries)

    @property
    def basis(self) -> Basis:
        """The threshold, its basis, and the range that the threshold may lie in."""
        return self.history.edited(self.calibration).basis(self.calibration)

    def set_rate(self, false_alarm_rate: float) -> Correction:
        """Set the threshold anew for another false-alarm rate, from the scores that are kept.

            saved.set_rate(0.01)

        Raises:
            SettingError: for a rate out of bounds; where recorded defects must be scored anew (`History.scores_stand`).
        """
        check_rate(false_alarm_rate)
        history = self.history.edited(self.calibration)
        return self._revised(history, history.with_revision("rate", self.calibration.threshold, value=false_alarm_rate))

    def set_threshold(self, raw_threshold: float) -> Correction:
        """Set the raw threshold by hand.

            saved.set_threshold(1.1 * saved.calibration.threshold)

        Raises:
            SettingError: if it does not lie above the typical score; and as `set_rate`.
        """
        history, now = self.history.edited(self.calibration), self.calibration
        chosen = history.by_hand(raw_threshold, now).as_dict()
        return self._revised(history, history.with_revision("threshold", now.threshold, calibration=chosen))

    def save(self) -> None:
        """Replace the file.

            saved.save()

        Raises:
            OutputError: if it cannot be written, or holds another inspector by now; nothing is then changed.
        """
        calibration = self.calibration.as_dict()
        archive.write(self.path, self._manifest, calibration, self._entries, expected=self._saved_digest)
        self._saved_digest = self.digest

    def _revised(self, before: History, after: History) -> Correction:
        """Take the thresholds that follow from one more revision."""
        if not before.scores_stand:
            raise SettingError(
                f"The recorded defects of {self.path} must score as they did when they were recorded, got an inspector "
                f"corrected since; set its threshold by `Detector`, which scores them anew."
            )
        was, digest = before.basis(self.calibration), self.digest
        self.history, self.calibration = after.settled()
        self._entries = {**self._entries, HISTORY_ENTRY: history_entry(self.history)}
        digests = archive.digests_of(self._entries)
        self.digest = archive.digest_of(self._manifest, self.calibration.as_dict(), digests)
        missed = tuple(
            missed_again(picture.name)
            for defect in self.history.standing("defect")
            for picture in defect.pictures
            if picture.raw_score is not None and picture.raw_score <= self.calibration.threshold
        )
        with reading(self.path):
            ignored = ignored_of(self._entries)
        share = None if ignored is None else float(ignored.mean())
        made, rests = self.history.revisions[-1], self.history.basis(self.calibration)
        return Correction(made, was, rests, (digest, self.digest), (), missed, share)
