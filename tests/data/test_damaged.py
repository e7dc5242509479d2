"""Files damaged at random: what comes out is what a reader makes of a valid file, or a refusal that names the file."""

import gzip
import hashlib
import random
import re
import tracemalloc

import numpy as np
import pytest
from test_idx import packed
from test_ppg import make_subject
from test_wfdb import annotation, note

from echograd import EchogradError
from echograd.workbench.data import (
    load,
    read_arff,
    read_idx,
    read_ppg_dalia,
    read_ts,
    read_tsv,
    read_wfdb,
    read_wfdb_annotations,
)

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]

TS = (
    b"# c\n@timeStamps false\n@missing false\n@univariate false\n@dimensions 2\n@equalLength true\n@seriesLength 3\n"
    b"@classLabel true walk run\n@data\n1,2,3:4,5,6:run\n-1,-2.5,1e2:0,0,0:walk\n"
)
TSV = b"2\t0.5\t-1.5e-1\tNaN\n-1\t3\t4\t5\n1\t3\t4\t5\n"
ARFF = (
    b"@relation x\n@attribute 'a b' numeric % c\n@attribute b real\n@attribute target {1, 'two words',\"c\"}\n@data\n"
    b"1,2,1\n3,?,'two words' % c\n3,4,\"c\"\n"
)
RELATIONAL = (
    b"@relation x\n@attribute r relational\n@attribute a numeric\n@attribute b numeric\n@end r\n"
    b"@attribute t {s,'r f'}\n@data\n'1.0,2.0\\n3.0,4.0',s\n\"5.0,?\\n7.0,?\",'r f'\n"
)
IDX = packed(np.arange(12, dtype=np.int16).reshape(3, 4), 0x0B)
HEADER = b"7 1 360 24\n7.dat 16 200(1024)/mV 11 1024 0 276 0 lead\n# 69 M\n"
ATR = (
    annotation(22, 0) + note("## time resolution: 1000") + annotation(28, 18) + note("(N\0") + annotation(1, 59)
    + annotation(59, 0) + b"\1\0\5\0" + annotation(5, 0) + annotation(61, 2) + annotation(28, 100) + note("(AFIB")
    + annotation(0, 0)
)  # fmt: skip
SUMS = b"".join(hashlib.sha256(TS).hexdigest().encode() + b"  Toy_%s.ts\n" % side for side in (b"TRAIN", b"TEST"))
NUMBERS = [b"0", b"-1", b"99999999999999999999", b"1e999", b"nan", b"1e-320", b"", b"?", b"1_0", b"9" * 5000]
FORMATS = {
    "x.ts": (TS, read_ts),
    "x.tsv": (TSV, read_tsv),
    "x.arff": (ARFF, read_arff),
    "relational.arff": (RELATIONAL, read_arff),
    "x.idx": (IDX, read_idx),
    "x.gz": (gzip.compress(IDX, mtime=0), read_idx),
    "7.hea": (HEADER, read_wfdb),
    "7.dat": (np.arange(24, dtype="<i2").tobytes(), lambda path: read_wfdb(path.with_suffix(".hea"))),
    "7.atr": (ATR, read_wfdb_annotations),
    "Toy/SHA256SUMS.txt": (SUMS, lambda path: load("Toy", root=path.parents[1])),
    **{
        f"{protocol}/S2/S2.pkl": (
            None,
            lambda path: read_ppg_dalia(path.parents[1], subjects=(1, 2, 3), length=128, stride=128, held_out=1),
        )
        for protocol in (0, 2, 5)
    },
}


def damaged(good, rng):
    data = bytearray(good)
    for _ in range(rng.choice([1, 1, 2, 4])):
        if not data:
            break
        at = rng.randrange(min(len(data), rng.choice([16, 64, 400, len(data)])))
        numbers = list(re.finditer(rb"-?[0-9.]+", data[:4000])) or [re.match(b"", data)]
        number = rng.choice(numbers)
        other = rng.randrange(len(data))
        start, end, put = rng.choice(
            [
                (at, at + 1, bytes([data[at] ^ 1 << rng.randrange(8)])),
                (at, at + 1, rng.choice([b"\0", b"\xff", b"'", b"%", b",", b"{", b":"])),
                (at, len(data), b""),
                (at, at + rng.choice([1, 4, 50]), b""),
                (at, at, data[at : at + rng.choice([1, 16, 300])] * rng.choice([1, 50])),
                (at, at + 4, rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"])),
                (at, at, rng.randbytes(rng.choice([1, 4, 20]))),
                (at, at + 8, data[other : other + 8]),
                (*number.span(), rng.choice(NUMBERS)),
            ]
        )
        data[start:end] = put
    return bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid")
    for protocol in (0, 2, 5):
        for subject in (1, 2, 3):
            make_subject(folder / f"{protocol}", subject, 12, protocol, lambda content: content["signal"].pop("chest"))
    (folder / "Toy").mkdir()
    for side in ("TRAIN", "TEST"):
        (folder / "Toy" / f"Toy_{side}.ts").write_bytes(TS)
    for name, (good, _) in FORMATS.items():
        if good is not None:
            (folder / name).write_bytes(good)
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_a_right_result_or_a_refusal(folder, name):
    path, (_, read) = folder / name, FORMATS[name]
    good = path.read_bytes()
    read(path)
    rng = random.Random(name)
    said = []
    tracemalloc.start()
    try:
        for _ in range(60):
            path.write_bytes(damaged(good, rng))
            try:
                read(path)
            except (EchogradError, OSError) as error:
                said.append(str(error))
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()
        path.write_bytes(good)
    assert all(str(folder) in text for text in said)
    assert len(said) > 10
