"""How trustworthy a proxy is, measured before any training.

found = calibrate(load_config(), count=256, with_truth=True, told=lambda done, whole: None)
print(found.evidence["share_mean_frac"], found.forecast.gain_chance, found.truth and found.truth.quality.auc)
"""

from __future__ import annotations

from selftrain.calibration.evidence import EVIDENCE, evidence_of
from selftrain.calibration.forecast import Forecast, forecast
from selftrain.calibration.measuring import Calibration, Truth, calibrate
from selftrain.calibration.pages import Pages, write_pages

__all__ = ["EVIDENCE", "Calibration", "Forecast", "Pages", "Truth", "calibrate", "evidence_of", "forecast", "write_pages"]
