"""Time formats: what Spark reads as it is meant passes, and the rest is told with what to write."""

import pytest

from jobs.time_pattern import from_strftime, has_offset, problem, variants


@pytest.mark.parametrize(
    "pattern",
    [
        *("epoch_s", "epoch_ns", "iso8601", "yyyy-MM-dd HH:mm:ss", "dd/MMM/yyyy:HH:mm:ss Z", "yyyyMMddHHmmss"),
        *("M/d/yy h:mm a", "yyyy-MM-dd", "yyyy-DDD", "yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "yyyy-MM-dd HH:mm:ss 'UTC'"),
        *("EEE, dd MMM yyyy HH:mm:ss z", "yyyy-MM-dd HH:mm[:ss][.SSS][XXX]", "yyyy-MM-dd HH:mm VV"),
        "yyyy-MM-dd['T'][ ]HH:mm[:ss][.SSSSSS][.SSS][XXX][XX][X][ z]",
    ],
)
def test_formats_that_a_source_may_have(pattern):
    assert problem(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("epoch", "write epoch_s, epoch_ms"),
        ("unix", "write epoch_s"),
        ("ms", "write epoch_s"),
        ("timestamp", "write epoch_s"),
        ("%s", "write epoch_s"),
        ("ISO8601", "write iso8601"),
        ("iso-8601", "write iso8601"),
        ("RFC3339", "write iso8601"),
        ("%Y-%m-%dT%H:%M:%SZ", "\"yyyy-MM-dd'T'HH:mm:ss'Z'\""),
        ("YYYY-MM-DD HH:mm:ss", "write 'yyyy-MM-dd HH:mm:ss'"),  # Moment.js
        ("uuuu-MM-dd HH:mm", "write 'yyyy-MM-dd HH:mm'"),
        ("MM-dd HH:mm:ss", "no year"),
        ("HH:mm", "no year"),
        ("MMM d HH:mm:ss", "no year"),  # syslog
        ("yyyy-mm-dd", "no month"),
        ("yyyy-MM HH:mm", "no day"),
        ("yyyy-MM-dd hh:mm:ss", "needs AM or PM"),
        ("yyyy-MM-dd mm:ss", "no hours"),
        ("yyyy-MM-dd HH:mm:SS", "fractions S"),
        ("yyyy-MM-dd HH:ss", "minutes are m"),
        ("yyyy-MM-dd'T HH:mm", "not closed"),
        ("yyyy-MM-dd[ HH:mm", "not closed"),
        ("yyyy-MM-dd[ HH[:mm]]", "inside of each other"),
        ("yyyy-MM-ddTHH:mm", "'T'"),
        ("yyyy-MM-dd EEE", "'EEE'"),
        ("yyyyMMMMMdd", "at most 4"),
        ("yyyy-MM-dd HH:mm V", "VV"),
        ("yyyy-MM-dd HH:mm {Z}", "single quotes"),
        ("yyyy-MM-dd HH:mm[X][XX][XXX][z][VV]", "5 optional parts with the zone"),
        ("yyyy-MM-dd HH:mm" + "'[X]'" * 5, "5 optional parts with the zone"),
        ("", "no time format"),
        ("'yyyy'", "no time format"),
    ],
)
def test_a_format_that_spark_reads_otherwise_is_told_with_what_to_write(pattern, told):
    assert told in problem(pattern)


def test_each_variant_of_a_pattern_says_whether_it_has_the_zone():
    assert variants("yyyy[ HH:mm][ Z][XXX]") == [
        "yyyy[ HH:mm] ZXXX",
        "yyyy[ HH:mm] Z",
        "yyyy[ HH:mm]XXX",
        "yyyy[ HH:mm]",
    ]
    assert [has_offset(each) for each in ("yyyy 'Z'", "yyyy Z", "yyyy-MM-dd'T'HH", "yyyy VV")] == [
        False,
        True,
        False,
        True,
    ]


def test_strftime_is_translated_with_its_fixed_texts():
    assert from_strftime("%d/%b/%Y:%T %z at %I%p") == "dd/MMM/yyyy:HH:mm:ss xx 'at' hha"
