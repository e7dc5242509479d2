"""Rolling forecasts of ETTh1 and ETTh2: oscillators against persistence and a linear map, on the same windows.

Run `python -m benchmarks.learning.forecasting FOLDER`, with ETTh1.csv and ETTh2.csv in the folder. Settings were fixed
beforehand or chosen on the validation hours; the test hours give the final scores only.
"""

import argparse
import json
import pathlib
import time

from echograd.estimators import LinearForecaster, PersistenceForecaster, SequenceForecaster
from echograd.workbench.data import read_ett_series

RESULTS = pathlib.Path(__file__).parent / "results" / "forecasting.json"
LOOK_BACK = 336
SETTINGS = {"epochs": 8, "max_windows": 8192, "hidden": 64, "units": 64, "validation_fraction": 0.25}


def main() -> None:
    """Measure all contenders and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--horizons", type=int, nargs="+", default=[96, 336])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--normalise", nargs="+", default=["last", "mean"])
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    options = parser.parse_args()
    rows = []
    for name in ("ETTh1", "ETTh2"):
        series = read_ett_series(options.folder / f"{name}.csv")
        known = series.values[:, : series.ends[1]]
        for horizon in options.horizons:
            contenders = {
                "last value": PersistenceForecaster(horizon),
                "last day": PersistenceForecaster(horizon, 24),
                "linear": LinearForecaster(horizon, LOOK_BACK),
            }
            for seed in options.seeds:
                for normalise in options.normalise:
                    contenders[f"oscillators, {normalise}, seed {seed}"] = SequenceForecaster(
                        horizon, look_back=LOOK_BACK, normalise=normalise, seed=seed, **SETTINGS
                    )
            for title, forecaster in contenders.items():
                begun = time.perf_counter()
                # The linear map has no validation: it learns from the training hours only, as the oscillators do.
                forecaster.fit(known if title.startswith("oscillators") else series.part("train"))
                seconds = time.perf_counter() - begun
                row = {"series": name, "horizon": horizon, "contender": title, "seconds": round(seconds, 1)}
                for side in ("validation", "test"):
                    row[side] = forecaster.evaluate(series.part(side, forecaster.look_back))
                rows.append(row)
                print(json.dumps(row), flush=True)
                options.out.parent.mkdir(parents=True, exist_ok=True)
                about = {"look_back": LOOK_BACK, "oscillators": SETTINGS}
                options.out.write_text(json.dumps({"settings": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
