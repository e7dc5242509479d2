"""Convert the .RData files of the R package mlmts (six UEA data sets) into .ts files.

Run `pip install rdata`, then `python -m benchmarks.learning.convert_rdata FOLDER OUT`. For every NAME.RData in it the
script writes OUT/NAME/NAME_TRAIN.ts and NAME_TEST.ts, which `echograd train NAME` reads if OUT is the
data folder (ECHOGRAD_DATA). In these files the training cases come first; their numbers are those of the UEA archive.
"""

import argparse
import pathlib

import numpy as np
import rdata  # pyright: ignore[reportMissingImports]

TRAINING = {
    "StandWalkJump": 12,
    "AtrialFibrillation": 15,
    "Epilepsy": 137,
    "BasicMotions": 40,
    "RacketSports": 151,
    "ERing": 30,
}


def lines_of(name: str, cases: list[np.ndarray], labels: list[str], classes: list[str]) -> list[str]:
    """Return the lines of a .ts file of cases of shape (steps, channels)."""
    head = [f"@problemName {name}", "@timeStamps false", "@univariate false", f"@dimensions {cases[0].shape[1]}"]
    rows = [
        ":".join([*(",".join(map(repr, channel.tolist())) for channel in case.T), label])
        for case, label in zip(cases, labels, strict=True)
    ]
    return [*head, f"@classLabel true {' '.join(classes)}", "@data", *rows]


def convert(file: pathlib.Path, out: pathlib.Path) -> None:
    """Write the two .ts files of one .RData file."""
    name = file.stem
    content = rdata.read_rda(file)[name]
    cases = [np.asarray(case, np.float64) for case in content["data"]]
    labels = [f"{float(label):g}" for label in content["classes"]]
    count = TRAINING[name]
    if not (len(labels) == len(cases) > count):
        raise ValueError(f"{file}: {len(cases)} cases and {len(labels)} classes; more than {count} are expected.")
    classes = sorted(set(labels), key=float)
    (out / name).mkdir(parents=True, exist_ok=True)
    for side, part in (("TRAIN", slice(0, count)), ("TEST", slice(count, None))):
        text = "\n".join(lines_of(name, cases[part], labels[part], classes)) + "\n"
        (out / name / f"{name}_{side}.ts").write_text(text, encoding="utf-8")
    print(f"{name}: {count} training cases, {len(cases) - count} test cases, {len(classes)} classes")


def main() -> None:
    """Convert all known files of a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    options = parser.parse_args()
    for file in sorted(options.folder.glob("*.RData")):
        if file.stem in TRAINING:
            convert(file, options.out)


if __name__ == "__main__":
    main()
