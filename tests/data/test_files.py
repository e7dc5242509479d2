import numpy as np
import pytest

from echograd.workbench.data import DataError, dataset_from_cases, read_arff, read_ts, read_tsv

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]

TS = """\
# A comment about the set.
%# Another kind of comment, seen in published files.
@problemName Toy
@timeStamps false
@missing false
@univariate false
@dimensions 2
@equalLength {equal}
@classLabel true walk run
@data
{data}
"""


@pytest.fixture
def write(tmp_path):
    def _write(text, name="toy.txt"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def assert_series(cases, expected):
    assert len(cases.series) == len(expected)
    for case, values in zip(cases.series, expected, strict=True):
        assert case.dtype == np.float32
        np.testing.assert_array_equal(case, np.array(values, np.float32).T)


class TestTs:
    def test_several_channels(self, write):
        cases = read_ts(write(TS.format(equal="true", data="1,2,3:4,5,6:run\n-1,-2.5,1e2:0,0,0:walk")))
        assert_series(cases, [[[1, 2, 3], [4, 5, 6]], [[-1, -2.5, 100], [0, 0, 0]]])
        assert cases.labels == ("run", "walk")
        assert cases.class_names == ("walk", "run")
        assert cases.targets is None

    def test_unequal_lengths(self, write):
        cases = read_ts(write(TS.format(equal="false", data="1,2,3:4,5,6:run\n7:8:walk")))
        assert_series(cases, [[[1, 2, 3], [4, 5, 6]], [[7], [8]]])

    def test_one_channel_and_windows_line_ends(self, tmp_path):
        path = tmp_path / "toy.ts"
        text = "@problemName Toy\n@univariate true\n@classLabel true 1 2\n@data\n0.5,1.5:1\n2.5,3.5:2\n"
        path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
        assert_series(read_ts(path), [[[0.5, 1.5]], [[2.5, 3.5]]])

    def test_real_targets(self, write):
        text = "@problemName Toy\n@targetLabel true\n@data\n1,2:0.25\n3,4:-7\n"
        cases = read_ts(write(text))
        np.testing.assert_array_equal(cases.targets, np.array([[0.25], [-7]], np.float32), strict=True)
        assert cases.labels is None

    @pytest.mark.parametrize("mark", ["?", "NaN"])
    def test_missing_values_are_refused_or_interpolated(self, write, mark):
        path = write(TS.format(equal="true", data=f"1,2,3:4,5,6:run\n1,{mark},4:{mark},5,{mark}:walk"))
        with pytest.raises(ValueError, match=r"line 12: 3 .* channel 1 \(but line 5 says '@missing false'\)"):
            read_ts(path)
        cases = read_ts(path, missing="interpolate")
        np.testing.assert_array_equal(cases.series[1], np.array([[1, 5], [2.5, 5], [4, 5]], np.float32))

    def test_a_channel_without_values_cannot_be_interpolated(self, write):
        path = write(TS.format(equal="true", data="1,2:?,?:run"))
        with pytest.raises(ValueError, match="all values of a channel are missing"):
            read_ts(path, missing="interpolate")

    def test_a_wrong_policy_is_refused(self, write):
        with pytest.raises(ValueError, match="missing='zero'; choose one of 'error', 'interpolate'"):
            read_ts(write(TS.format(equal="true", data="1,2:3,4:run")), missing="zero")

    @pytest.mark.parametrize(
        "text",
        [
            "@problemName Toy\n@timeStamps true\n@classLabel true 1\n@data\n",
            "@problemName Toy\n@classLabel true 1\n@data\n(0,1.5),(1,2.5):1\n",
        ],
    )
    def test_time_stamps_are_refused(self, write, text):
        with pytest.raises(DataError, match="time stamps"):
            read_ts(write(text))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (TS.format(equal="true", data="1,2:3,4:run\n1,x:3,4:run"), r"line 12: 'x' is not a number"),
            (TS.format(equal="true", data="1,2:3,4,5:run"), "line 11: the channels of this case have 2 to 3 steps"),
            (TS.format(equal="true", data="1,2,3"), "line 11: no ':'"),
            (TS.format(equal="true", data="1,2:3,4:swim"), r"line 11: .* 'swim', .* not declare: it has walk, run\."),
            ("@classLabel true\n@data\n1,2:3,4:run\n1,2:run\n", r"\[1, 2\] channels"),
            (TS.format(equal="true", data=""), "no cases"),
            ("@problemName Toy\n@classLabel true 1 2\n", "no @data"),
            ("@problemName Toy\n@classLabel false\n@data\n1,2\n", "no class labels or targets"),
            ("hello\n", "line 1: expected a header line"),
            ("@classLabel true\n@data\n1,2:\n", "line 3: the case has no label"),
            ("@classLabel true\n@data\n1,2:?\n", "line 3: the case has no label"),
            ("@targetLabel true\n@data\n1,2:nan\n", "line 3: the case has no label"),
            ("@targetLabel true\n@data\n1,2:1e300\n", "line 3: the target '1e300' is not finite in float32"),
            ("@classLabel true\n@data\n1,-2e300:a\n", r"line 3: -2e\+300 at step 1 of channel 0 is not finite"),
            ("@classLabel true\n@data\n1,inf:a\n", "line 3: inf at step 1 of channel 0 is not finite"),
        ],
    )
    def test_what_is_wrong_is_named(self, write, text, message):
        with pytest.raises(ValueError, match=message):
            read_ts(write(text))

    @pytest.mark.parametrize(
        ("claims", "data", "message"),
        [
            ("@dimensions 3", "1,2:3,4:a", r"line 4: the case has 2 channels, but line 1 says '@dimensions 3'"),
            ("@DIMENSION 3", "1,2:3,4:a", r"line 4: the case has 2 channels, but line 1 says '@DIMENSION 3'"),
            ("@dimensions two", "1,2:3,4:a", r"line 1 says '@dimensions two', but the number must be at least 1"),
            ("@univariate true", "1,2:3,4:a", r"line 4: the case has 2 channels, but line 1 says '@univariate true'"),
            ("@univariate false", "1,2,3,4:a", r"line 4: the case has 1 channels, but line 1 says '@univariate false'"),
            ("@univariate", "1,2:a", "line 1: '@univariate' says neither true nor false"),
            ("@seriesLength 3", "1,2,3:a\n1,2:a", r"line 5: the case has 2 steps, but line 1 says '@seriesLength 3'"),
            ("@serieslength 0", "1,2:a", r"line 1 says '@serieslength 0', but the number must be at least 1"),
            ("@equalLength true", "1,2,3:a\n1,2:a", r"line 5: .* 2 steps where the first case has 3, but line 1"),
            ("@missing false", "1,?:a", r"line 4: 1 missing values.* \(but line 1 says '@missing false'\)"),
            ("@targetLabel true", "1,2:1", r"line 2 says '@classLabel true a', but line 1 says '@targetLabel true'"),
            ("@classLabel true b", "1,2:a", r"line 2: '@classLabel true a', but line 1 says '@classLabel true b'"),
        ],
    )
    def test_a_case_that_contradicts_the_header_is_refused(self, write, claims, data, message):
        with pytest.raises(ValueError, match=message):
            read_ts(write(f"{claims}\n@classLabel true a\n@data\n{data}\n"))

    @pytest.mark.parametrize(
        ("claims", "data"),
        [
            ("", "1,2,3:4,5,6:a\n1,2:3,4:a"),  # what is not claimed is not checked
            ("@Dimension 2 \n@UNIVARIATE False\n@missing true", "1,2:3,4:a"),
            ("@equalLength false", "1,2:a\n3,4:a"),  # the lengths of this side of the split happen to be equal
            ("@equalLength false\n@seriesLength 0", "1,2:a\n3:a"),
            ("@seriesLength 2 # steps", "1,2:a"),
            ("@problemName Toy\n@problemName Other\n@equalLength true\n@equalLength true", "1,2:a"),
            ("@classLabel true a b(c)", "1,2:b(c)"),
        ],
    )
    def test_headers_of_published_files_are_read(self, write, claims, data):
        last = "" if "@classLabel" in claims else "@classLabel true a\n"
        assert len(read_ts(write(f"{claims}\n{last}@data\n{data}\n")).series) == data.count("\n") + 1

    @pytest.mark.parametrize("order", [1, -1])
    def test_either_kind_of_target_may_be_denied(self, write, order):
        head = "\n".join(["@targetLabel true", "@classLabel false"][::order])
        assert read_ts(write(head + "\n@data\n1,2:0.5\n")).targets.tolist() == [[0.5]]

    def test_names_that_look_like_numbers_stay_apart(self, write):
        cases = read_ts(write("@classLabel true 12 1_2\n@data\n1,2:1_2\n1,2:12\n"))
        assert cases.labels == ("1_2", "12")
        with pytest.raises(ValueError, match="declares a class twice"):
            read_ts(write("@classLabel true 1 01\n@data\n1,2:1\n"))

    def test_labels_that_cannot_be_told_apart_are_refused(self, tmp_path):
        (tmp_path / "toy.ts").write_bytes("# à\n@problemName à\n@classLabel true\n@data\n1:à\n1:é\n".encode("latin-1"))
        with pytest.raises(ValueError, match="line 5: not UTF-8"):
            read_ts(tmp_path / "toy.ts")

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.ts"):
            read_ts(tmp_path / "nowhere.ts")


class TestTsv:
    def test_label_first(self, write):
        cases = read_tsv(write("2\t0.5\t-1.5e-1\n-1\t3\t4\n"))
        assert_series(cases, [[[0.5, -0.15]], [[3, 4]]])
        assert cases.labels == ("2", "-1")

    def test_older_files_have_blanks_and_real_labels(self, write):
        cases = read_tsv(write("  1.0000000e+00   5.0  6.0\n  2.0000000e+00   7.0  8.0\n"))
        assert cases.labels == ("1", "2")
        assert_series(cases, [[[5, 6]], [[7, 8]]])

    def test_missing_values_at_the_end_mean_a_shorter_series(self, write):
        assert_series(read_tsv(write("1\t1\t2\t3\n2\t4\tNaN\tNaN\n")), [[[1, 2, 3]], [[4]]])

    def test_missing_values_within_are_refused_or_interpolated(self, write):
        path = write("1\t1\t2\t3\n2\t4\tNaN\t8\n")
        with pytest.raises(ValueError, match="line 2: 1 missing values, the first at step 1"):
            read_tsv(path)
        assert_series(read_tsv(path, missing="interpolate"), [[[1, 2, 3]], [[4, 6, 8]]])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("1\t1\t2\n2\t3\n", "line 2: 1 values, but the first line has 2"),
            ("1\t1\t2\n2\n", "line 2: a label without values"),
            ("1\tNaN\tNaN\n", "line 1: all values are missing"),
            ("1\t1\tabc\n", "'abc' is not a number"),
            ("1\t1\t\t2\n2\t3\t\t4\n", "line 1: '' is not a number"),
            ("\t1\t2\n\t3\t4\n", "line 1: the case has no label"),
            ("1\t1_5\t2\n", "line 1: '1_5' is not a number"),
            ("", "no cases"),
        ],
    )
    def test_what_is_wrong_is_named(self, write, text, message):
        with pytest.raises(ValueError, match=message):
            read_tsv(write(text))


RELATIONAL = """\
%This is a comment
@relation Toy

@attribute relationalAtt relational
@attribute att0 numeric
@attribute att1 numeric
@end relationalAtt
@attribute activity {Standing,'Running fast'}

@data
'1.0,2.0\\n3.0,4.0',Standing
"5.0,?\\n7.0,?",'Running fast'
"""


class TestArff:
    def test_several_channels(self, write):
        cases = read_arff(write(RELATIONAL))
        assert_series(cases, [[[1, 2], [3, 4]], [[5], [7]]])
        assert cases.labels == ("Standing", "Running fast")
        assert cases.class_names == ("Standing", "Running fast")

    def test_one_channel(self, write):
        text = (
            "@RELATION Toy\n@ATTRIBUTE att1 NUMERIC\n@ATTRIBUTE att2 NUMERIC\n@ATTRIBUTE target {-1, 1}\n"
            "@DATA\n0.5,1.5,-1\n2.5,3.5,1\n"
        )
        cases = read_arff(write(text))
        assert_series(cases, [[[0.5, 1.5]], [[2.5, 3.5]]])
        assert cases.labels == ("-1", "1")
        assert cases.class_names == ("-1", "1")

    @pytest.mark.parametrize(("row", "found"), [("1,x", 2), ("1,2,3,x", 4)])
    def test_a_row_has_as_many_values_as_are_declared(self, write, row, found):
        head = "@relation Toy\n@attribute a numeric\n@attribute b numeric\n@attribute class {x}\n@data\n"
        assert_series(read_arff(write(head + "1,?,x\n")), [[[1]]])
        with pytest.raises(ValueError, match=rf"line 7: {found} values and labels for 3 attributes"):
            read_arff(write(head + "1,2,x\n" + row + "\n"))

    @pytest.mark.parametrize(
        ("declared", "rows", "labels"),
        [
            ("target {1,2} % two classes", "1,2,1 % first\n3,4,2", ("1", "2")),
            ("target{ 1 ,2\t}", "1,2, 1 \n3,4,2", ("1", "2")),
            ("'the target' {'a, b',\"c } % d\"}", "1,2,'a, b'\n3,4,\"c } % d\" % second", ("a, b", "c } % d")),
            (r"""target {'it\'s', "a \"b\\", ' a'}""", "1,2,'it\\'s'\n3,4,' a'", ("it's", " a")),
            ("target {a,' a'}", "1,2,a\n3,4,' a'", ("a", " a")),
            ("'{1,2}' {x,y}", "1,2,x\n3,4,y", ("x", "y")),
            ("target {12345678901234567890,12345678901234567891}", "1,2,12345678901234567890\n3,4,12345678901234567891",
             ("12345678901234567890", "12345678901234567891")),
        ],
    )  # fmt: skip
    def test_classes_are_never_read_as_numbers(self, write, declared, rows, labels):
        head = "@relation x\n@attribute 'a %' numeric % first\n@attribute b REAL\n"
        cases = read_arff(write(f"{head}@attribute {declared}\n@data\n{rows}\n"))
        assert cases.labels == labels
        assert cases.targets is None
        assert_series(cases, [[[1, 2]], [[3, 4]]])

    @pytest.mark.parametrize(
        ("declared", "message"),
        [
            ("target string", "line 4: attribute target is of type 'string'. Supported are numbers"),
            ("target date 'yyyy-MM'", "line 4: attribute target is of type \"date 'yyyy-MM'\". Supported are numbers"),
            ("target date", "line 4: attribute target is of type 'date'"),
            ("target", "line 4: attribute target is of type ''"),
            ("target relational", "line 4: attribute target is of type 'relational'"),
            ("target {1,2", "line 4: '{1,2' is not a list of classes"),
            ("target {1,2} extra", "line 4: '{1,2. extra' is not a list of classes"),
            ("target {}", "line 4: '{}' is not a list of classes"),
            ("target {1,,2}", "line 4: '{1,,2}' is not a list of classes"),
            ("target {two words,1}", "line 4: '{two words,1}' is not a list of classes.*quotes"),
            ("target {it's,1}", 'line 4: "{it\'s,1}" is not a list'),
            ("'target {1,2}", "line 4: .* has no name and type"),
            ("target {1,3}", "line 7: the case has the class '2', which the header does not declare"),
        ],
    )
    def test_types_that_are_not_read_are_refused(self, write, declared, message):
        text = f"@relation x\n@attribute a numeric\n@attribute b numeric\n@attribute {declared}\n@data\n1,2,1\n3,4,2\n"
        with pytest.raises(ValueError, match=message):
            read_arff(write(text))

    def test_dates_among_values_are_refused(self, write):
        with pytest.raises(ValueError, match="line 2: attribute a is of type \"date 'yyyy'\""):
            read_arff(write("@relation x\n@attribute a date 'yyyy'\n@attribute y {1}\n@data\n2001,1\n"))
        with pytest.raises(ValueError, match="line 5: a sparse row"):
            read_arff(write("@relation x\n@attribute a numeric\n@attribute y {1}\n@data\n{0 2, 1 1}\n"))

    def test_classes_that_are_not_last_are_refused(self, write):
        text = "@relation t\n@attribute class {1,2}\n@attribute a numeric\n@attribute b numeric\n@data\n1,0.5,0.7\n"
        with pytest.raises(ValueError, match="line 3: an attribute follows the classes 1, 2"):
            read_arff(write(text))

    def test_a_last_row_may_be_ended(self, write):
        cases = read_arff(write(RELATIONAL.replace("4.0'", "4.0\\n'")))
        assert_series(cases, [[[1, 2], [3, 4]], [[5], [7]]])

    def test_a_numeric_class_is_a_regression_target(self, write):
        text = "@relation t\n@attribute a numeric\n@attribute y numeric\n@data\n1,0.5\n2,0.75\n"
        cases = read_arff(write(text))
        np.testing.assert_array_equal(cases.targets, np.array([[0.5], [0.75]], np.float32), strict=True)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("'1.0,2.0\\n3.0,4.0',Standing", "'1.0,2.0\\n3.0", "line 11: expected a quoted block"),
            ("3.0,4.0'", "3.0'", "line 11: a channel has 1 values for 2 attributes"),
            ("1.0,2.0\\n3.0,4.0", "1.0\\n3.0", "line 11: a channel has 1 values for 2 attributes"),
            ("{Standing,", "{Standing, Standing,", "declares a class twice"),
            ("1.0,2.0", "1.0,2_0", "line 11: '2_0' is not a number"),
            ("Standing\n", "Swimming\n", "does not declare"),
            ("1.0,2.0", "1.0,?", "1 missing values"),
            ("@data", "@end", "line 10: expected a header line"),
            ("@data", "", "line 11: expected a header line .* found"),
            ("@relation", "@relations", "line 2: expected a header line"),
            ("@end relationalAtt\n", "", "line 7: attribute activity is of type .{Standing,"),
            ("att1 numeric", "att1 string", "line 6: attribute att1 is of type 'string'"),
            ("@data", "@attribute more numeric\n@data", "line 10: an attribute follows the classes Standing"),
            ("@attribute att0 numeric\n@attribute att1 numeric\n", "", "line 8: the header declares no values"),
            (
                "@attribute activity {Standing,'Running fast'}",
                "",
                "line 10: the header declares no values, or no class",
            ),
        ],
    )
    def test_what_is_wrong_is_named(self, write, old, new, message):
        with pytest.raises(ValueError, match=message):
            read_arff(write(RELATIONAL.replace(old, new)))


class TestDatasetFromCases:
    def test_order_and_split_are_the_files(self, write):
        # Equal rows, and rows that are not sorted: nothing may be merged, sorted or moved to the other side.
        train = read_tsv(write("2\t9\t9\n1\t1\t1\n2\t9\t9\n10\t5\t5\n1\t0\t0\n", "train"))
        test = read_tsv(write("10\t3\t3\n2\t9\t9\n", "test"))
        dataset = dataset_from_cases("toy", train, test)
        assert dataset.class_names == ("1", "2", "10")
        np.testing.assert_array_equal(dataset.train.inputs[:, 0, 0], [9, 1, 9, 5, 0])
        np.testing.assert_array_equal(dataset.train.targets, [1, 0, 1, 2, 0])
        np.testing.assert_array_equal(dataset.test.inputs[:, 0, 0], [3, 9])
        np.testing.assert_array_equal(dataset.test.targets, [2, 1])
        assert dataset.validation is None

    def test_class_numbers_do_not_depend_on_the_format(self, write):
        ts = TS.replace("walk run", "2 1")
        one = read_ts(write(ts.format(equal="true", data="1,2:3,4:1\n5,6:7,8:2"), "a"))
        other = read_arff(
            write(
                RELATIONAL.replace("{Standing,'Running fast'}", "{1,2}")
                .replace("Standing", "1")
                .replace("'Running fast'", "2"),
                "b",
            )
        )
        assert dataset_from_cases("t", one, one).class_names == dataset_from_cases("t", other, other).class_names

    def test_a_declared_class_without_cases_keeps_its_number(self, write):
        train = read_ts(write(TS.format(equal="true", data="1,2:3,4:walk"), "a"))
        test = read_ts(write(TS.format(equal="true", data="1,2:3,4:run"), "b"))
        dataset = dataset_from_cases("toy", train, test)
        assert dataset.class_names == ("run", "walk")
        assert dataset.train.targets.tolist() == [1]

    def test_the_longest_of_both_files_decides_the_length(self, write):
        train = read_tsv(write("1\t1\t2\n2\t3\tNaN\n", "a"))
        test = read_tsv(write("1\t1\t2\t3\n", "b"))
        dataset = dataset_from_cases("toy", train, test)
        assert dataset.train.inputs.shape == (2, 3, 1)
        np.testing.assert_array_equal(dataset.train.lengths, [2, 1])

    def test_a_class_only_in_the_test_file_is_refused(self, write):
        train, test = read_tsv(write("1\t1\t2\n", "a")), read_tsv(write("3\t1\t2\n", "b"))
        with pytest.raises(ValueError, match=r"classes \['3'\]"):
            dataset_from_cases("toy", train, test)

    def test_channels_must_agree(self, write):
        train = read_tsv(write("1\t1\t2\n", "a"))
        test = read_arff(write(RELATIONAL, "b"))
        with pytest.raises(ValueError, match=r"\[1, 2\] channels"):
            dataset_from_cases("toy", train, test)

    def test_kinds_of_target_must_agree(self, write):
        train = read_tsv(write("1\t1\t2\n", "a"))
        test = read_ts(write("@problemName t\n@targetLabel true\n@data\n1,2:0.5\n", "b"))
        with pytest.raises(ValueError, match="one file has class labels"):
            dataset_from_cases("toy", train, test)
