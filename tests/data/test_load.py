import contextlib
import http.server
import io
import socket
import struct
import sys
import threading
import time
import zipfile

import numpy as np
import pytest
from test_ppg import make_subject

from echograd.workbench.data import _load, _store, available, data_folder, load

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]

TRAIN = "@problemName Toy\n@classLabel true 1 2\n@data\n1,2,3:2\n4,5,6:1\n7,8,9:2\n"
TEST = "@problemName Toy\n@classLabel true 1 2\n@data\n0,2,3:1\n0,5,6:1\n"
KNOWN = _load._Known("Toy archive", 3, 2, 1, 3, 2, 50.0)


def pack(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


GOOD = pack({"some/folder/Toy_TRAIN.ts": TRAIN, "../../Toy_TEST.ts": TEST, "../evil.txt": "x"})


def announcing(archive, size):
    """The archive with members that claim to be so large when they are unpacked."""
    directory = archive.index(b"PK\1\2")
    entries = archive[directory:].split(b"PK\1\2")
    entries = [entry[:20] + struct.pack("<I", size) + entry[24:] if entry else entry for entry in entries]
    return archive[:directory] + b"PK\1\2".join(entries)


def encrypted(archive):
    """The archive with members that claim to be encrypted."""
    for magic, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        archive = magic.join(
            part[: at - 4] + b"\1" + part[at - 3 :] if i else part for i, part in enumerate(archive.split(magic))
        )
    return archive


@contextlib.contextmanager
def served(answer):
    """Serve one answer under every address of a local server; gives the address and the list of requests."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            answer(self)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{{name}}.zip", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def body(data, status=200, announced=None):
    def answer(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", str(announced or len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


@pytest.fixture
def upstream(monkeypatch):
    """Make `Toy` a known set that is published at an address of this machine."""

    @contextlib.contextmanager
    def _upstream(answer):
        with served(answer) as (url, requests):
            monkeypatch.setitem(_load._KNOWN, "Toy", KNOWN)
            monkeypatch.setattr(_load, "_ARCHIVE_URL", url)
            yield requests

    return _upstream


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class TestDownload:
    def test_once_and_then_from_the_cache(self, upstream, tmp_path):
        with upstream(body(GOOD)) as requests:
            dataset = load("Toy", root=tmp_path)
            assert requests == ["/Toy.zip"]
        again = load("Toy", root=tmp_path)  # the server is gone
        assert len(requests) == 1
        for one in (dataset, again):
            np.testing.assert_array_equal(one.train.inputs[..., 0], [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
            np.testing.assert_array_equal(one.train.targets, [1, 0, 1])
            np.testing.assert_array_equal(one.test.inputs[..., 0], [[0, 2, 3], [0, 5, 6]])
        assert dataset.sample_rate == 50.0
        # Nothing else is kept, and nothing lies outside of the set's folder.
        assert files_in(tmp_path) == ["Toy/SHA256SUMS.txt", "Toy/Toy_TEST.ts", "Toy/Toy_TRAIN.ts"]

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (body(GOOD[:-40]), "zip"),
            (body(GOOD[:60], announced=len(GOOD)), "Toy"),
            (body(b"<html>moved</html>"), "zip"),
            (body(b"gone", status=404), "404"),
            (body(GOOD.replace(GOOD[60:64], b"\0\0\0\0")), "Toy"),
            (body(pack({"Toy_TRAIN.ts": TRAIN})), r"lacks Toy_TRAIN\.ts, Toy_TEST\.ts"),
            (body(announcing(GOOD, 1 << 31)), "its files would take 4294967296 bytes; the limit for an archive of 484"),
            (body(pack({f"{i}.txt": "" for i in range(10_001)})), "has 10001 members, more than the limit of 10000"),
            (body(pack({"Toy_TRAIN.ts": TRAIN, "Toy_TEST.ts": TEST, "a/Toy_TEST.ts": TRAIN})), "files named Toy_"),
            (body(encrypted(GOOD)), "encrypted"),
        ],
        ids=[
            "truncated", "connection lost", "no archive", "404", "damaged", "half", "bomb", "members", "two of a name",
            "encrypted",
        ],
    )  # fmt: skip
    def test_what_is_not_whole_is_not_kept(self, upstream, tmp_path, answer, message):
        with (
            upstream(answer),
            pytest.raises(ConnectionError, match=rf"(?s){message}.*put Toy_TRAIN.*{tmp_path}"),
        ):
            load("Toy", root=tmp_path)
        assert files_in(tmp_path) == []
        with upstream(body(GOOD)):
            assert len(load("Toy", root=tmp_path).train) == 3

    def test_another_content_than_the_published_is_not_kept(self, upstream, tmp_path):
        with upstream(body(pack({"Toy_TRAIN.ts": TEST, "Toy_TEST.ts": TEST}))):
            with pytest.raises(ValueError, match=r"\(2, 2, 3, 1, 2\), published are \(3, 2, 3, 1, 2\)"):
                load("Toy", root=tmp_path)
            assert files_in(tmp_path) == []

    def test_a_server_that_never_answers_is_given_up(self, upstream, tmp_path, monkeypatch):
        monkeypatch.setattr(_store, "_TIMEOUT", 0.2)
        done = threading.Event()
        begin = time.monotonic()
        with (
            upstream(lambda handler: done.wait(20)),
            contextlib.ExitStack() as stack,
        ):
            stack.callback(done.set)
            with pytest.raises(ConnectionError, match=r"(?i)timed? ?out"):
                load("Toy", root=tmp_path)
        assert time.monotonic() - begin < 10
        assert files_in(tmp_path) == []

    def test_without_a_server(self, monkeypatch, tmp_path):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            monkeypatch.setitem(_load._KNOWN, "Toy", KNOWN)
            monkeypatch.setattr(_load, "_ARCHIVE_URL", f"http://127.0.0.1:{unused.getsockname()[1]}/{{name}}.zip")
            with pytest.raises(ConnectionError, match=r"put Toy_TRAIN\.ts and Toy_TEST\.ts into"):
                load("Toy", root=tmp_path)

    def test_a_data_folder_that_cannot_be(self, monkeypatch, tmp_path):
        (tmp_path / "file").write_text("mine")
        monkeypatch.setenv("ECHOGRAD_DATA", str(tmp_path / "file"))
        with pytest.raises(OSError, match=r"file is a file. Choose a data folder that can be written .ECHOGRAD_DATA."):
            load("Heartbeat")

    def test_without_pooch(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "pooch", None)
        with pytest.raises(ModuleNotFoundError, match=r"echograd\[workbench\].*put EigenWorms_TRAIN\.ts"):
            load("EigenWorms", root=tmp_path)

    def test_other_formats_in_the_archive(self, upstream, tmp_path):
        files = {
            "Toy_TRAIN.tsv": "2\t1\t2\t3\n1\t4\t5\t6\n2\t7\t8\t9\n",
            "Toy_TEST.tsv": "1\t0\t2\t3\n1\t0\t5\t6\n",
        }
        with upstream(body(pack({**files, "Toy_TRAIN.ts": TRAIN}))):
            assert len(load("Toy", root=tmp_path).train) == 3
        assert files_in(tmp_path) == ["Toy/SHA256SUMS.txt", "Toy/Toy_TEST.tsv", "Toy/Toy_TRAIN.tsv"]

    def test_an_archive_in_an_archive(self, monkeypatch, tmp_path):
        made = tmp_path / "made"
        for subject in range(1, 16):
            make_subject(made, subject, seconds=790)
        inner = pack({f"PPG_FieldStudy/{name}": (made / name).read_bytes() for name in files_in(made)})
        with served(body(pack({"data.zip": inner, "readme.txt": "hello"}))) as (url, _):
            monkeypatch.setattr(_load, "_PPG_URL", url.format(name="ppg"))
            dataset = load("PPG-DaLiA", root=tmp_path / "cache")
        assert dataset.task == "regression"
        kept = files_in(tmp_path / "cache" / "PPG-DaLiA")
        assert kept == sorted(["SHA256SUMS.txt", *(f"S{i}/S{i}.pkl" for i in range(1, 16))])
        assert len(load("PPG-DaLiA", root=tmp_path / "cache", download=False).train) == len(dataset.train)


class TestCache:
    def test_a_file_that_changed_is_noticed(self, upstream, tmp_path):
        with upstream(body(GOOD)):
            load("Toy", root=tmp_path)
        file = tmp_path / "Toy" / "Toy_TEST.ts"
        file.write_text(TEST.replace("0,2,3", "0,2,4"))
        with pytest.raises(ValueError, match=r"Toy_TEST\.ts has changed since its download"):
            load("Toy", root=tmp_path)

    @pytest.mark.parametrize("keep", ["", "Toy_TRAIN", "no checksum\n"])
    def test_checksums_cannot_be_emptied(self, upstream, tmp_path, keep):
        with upstream(body(GOOD)):
            load("Toy", root=tmp_path)
        sums = tmp_path / "Toy" / "SHA256SUMS.txt"
        kept = [line for line in sums.read_text().splitlines() if keep in line] if keep == "Toy_TRAIN" else [keep]
        sums.write_text("\n".join(kept))
        with pytest.raises(ValueError, match=r"SHA256SUMS.txt has no SHA-256 of Toy_T.*cannot be verified"):
            load("Toy", root=tmp_path)
        sums.unlink()
        sums.mkdir()
        with pytest.raises(IsADirectoryError, match=r"SHA256SUMS\.txt is a folder"):
            load("Toy", root=tmp_path)

    def test_files_put_there_by_hand(self, tmp_path):
        folder = tmp_path / "Mine"
        folder.mkdir()
        (folder / "Mine_TRAIN.tsv").write_text("a\t1\t2\nb\t3\t4\n")
        (folder / "Mine_TEST.tsv").write_text("b\t5\tNaN\n")
        dataset = load("Mine", root=tmp_path)
        assert dataset.class_names == ("a", "b")
        assert dataset.test.lengths.tolist() == [1]

    def test_the_policy_for_missing_values_is_passed_on(self, tmp_path):
        (tmp_path / "Gap_TRAIN.tsv").write_text("1\t1\tNaN\t3\n")
        (tmp_path / "Gap_TEST.tsv").write_text("1\t1\t2\t3\n")
        with pytest.raises(ValueError, match="missing='interpolate'"):
            load("Gap", root=tmp_path)
        dataset = load("Gap", root=tmp_path, missing="interpolate")
        np.testing.assert_array_equal(dataset.train.inputs[0, :, 0], [1, 2, 3])

    def test_half_of_a_set_is_not_a_set(self, tmp_path):
        folder = tmp_path / "Heartbeat"
        folder.mkdir()
        (folder / "Heartbeat_TRAIN.ts").write_text(TRAIN)
        with pytest.raises(FileNotFoundError, match="Heartbeat_TEST"):
            load("Heartbeat", root=tmp_path, download=False)

    @pytest.mark.parametrize("name", ["EigenWorms", "FordA", "PPG-DaLiA"])
    def test_offline_the_message_says_what_to_put_where(self, name, tmp_path):
        file = "S15/S15.pkl" if name == "PPG-DaLiA" else f"{name}_TEST.ts"
        with pytest.raises(FileNotFoundError) as caught:
            load(name, root=tmp_path, download=False)
        for part in (str(tmp_path / name), file, "https://"):
            assert part in str(caught.value)
        assert files_in(tmp_path) == []

    @pytest.mark.parametrize(
        ("name", "hint"),
        [("EigenWorm", "'EigenWorms'"), ("ecg", "Known:"), ("../x", "Known:"), ("", "Known:")],
    )
    def test_an_unknown_name_is_refused_without_a_download(self, name, hint, tmp_path):
        with pytest.raises(ValueError, match=f"no data set .*{hint}"):
            load(name, root=tmp_path)


class TestFolder:
    def test_the_argument_comes_before_the_environment_before_the_system(self, monkeypatch, tmp_path):
        monkeypatch.setenv("ECHOGRAD_DATA", str(tmp_path / "environment"))
        assert data_folder(tmp_path / "argument") == tmp_path / "argument"
        assert data_folder() == tmp_path / "environment"
        monkeypatch.delenv("ECHOGRAD_DATA")
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert data_folder() == tmp_path / "cache" / "echograd"
        assert not (tmp_path / "cache").exists()


class TestAvailable:
    def test_states(self, tmp_path):
        folder = tmp_path / "Mine"
        folder.mkdir()
        (folder / "Mine_TRAIN.tsv").write_text("1\t1\t2\n")
        (folder / "Mine_TEST.tsv").write_text("1\t3\t4\n")
        (tmp_path / "Other").mkdir()
        entries = {entry.name: entry for entry in available(tmp_path)}
        assert {name for name, entry in entries.items() if entry.state == "bundled"} == {
            "ecg-rhythm", "ecg-afib", "ecg-rhythm-envelope", "ecg-afib-envelope"
        }  # fmt: skip
        assert entries["Mine"].state == "cached"
        assert entries["Mine"].folder == folder
        assert entries["FordA"].state == "missing"
        assert entries["PPG-DaLiA"].task == "regression"
        assert "Other" not in entries

    def test_the_six_and_the_seven_published_sets_are_known(self, tmp_path):
        names = {entry.name for entry in available(tmp_path / "nowhere")}
        assert names >= {
            "EigenWorms", "SelfRegulationSCP1", "SelfRegulationSCP2", "EthanolConcentration", "Heartbeat",
            "MotorImagery", "PPG-DaLiA", "PigCVP", "HouseTwenty", "EthanolLevel", "ACSF1",
            "EOGHorizontalSignal", "Lightning2", "FordA",
        }  # fmt: skip

    def test_the_table_tells_the_bundled_sets_as_they_are(self, tmp_path):
        for entry in available(tmp_path)[:4]:
            dataset = load(entry.name)
            assert entry.cases == tuple(len(split) for split in dataset.splits.values())
            assert (entry.length, entry.channels, entry.classes) == (
                dataset.length, dataset.inputs_dim, dataset.classes
            )  # fmt: skip
