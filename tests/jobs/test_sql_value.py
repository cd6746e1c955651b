"""Expressions of a source: they compute a value from the row, and can do nothing else."""

import pytest

from jobs.sql_value import columns, with_columns


@pytest.mark.parametrize(
    ("sql", "read"),
    [
        ("concat(date, ' ', time)", ["date", "time"]),
        ("case when try_cast(amount as decimal(10, 2)) < 0 then 'return' else `event x` end", ["amount", "event x"]),
        ("if(`order``id` is not null and not event in ('a', 'b'), 'buy', properties.event)", None),
        ("coalesce(nullif(trim(user), ''), cookie)", ["user", "cookie"]),
        ("length(query) > 3", ["query"]),
        ("status = '200' and path like '%/buy'", ["status", "path"]),
        ("'it''s -- /* no comment */ rand() select'", []),
        ("用户", ["用户"]),
    ],
)
def test_the_columns_that_an_expression_reads(sql, read):
    assert columns(sql) == (read if read is not None else ["order`id", "event", "properties.event"])


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        pytest.param("(select max(user) from events)", "no subquery", id="another table"),
        pytest.param("(select user)", "no subquery", id="a subquery"),
        pytest.param("user in (select user from t)", "no subquery", id="a subquery as a list"),
        pytest.param("exists (select 1)", "function exists", id="a subquery in a test"),
        pytest.param("rand()", "function rand may not", id="chance"),
        pytest.param("RAND ( )", "function rand may not", id="chance, in capitals and with blanks"),
        pytest.param("uuid()", "function uuid may not", id="chance of another kind"),
        pytest.param("current_timestamp()", "function current_timestamp may not", id="the clock"),
        pytest.param("java_method('java.lang.Runtime', 'getRuntime')", "java_method may not", id="a call of Java"),
        pytest.param("reflect('java.lang.System', 'exit')", "reflect may not", id="a call of Java by another name"),
        pytest.param("input_file_name()", "input_file_name may not", id="a file"),
        pytest.param("`rand`()", "may not", id="a function in backquotes"),
        pytest.param("sum(price) over ()", "function sum may not", id="other rows"),
        pytest.param("explode(items)", "explode may not", id="other rows of its own"),
        pytest.param("cast(price as int)", "write try_cast", id="fails the day for one row"),
        pytest.param("price / 100", "try_divide", id="division by a column that may be zero"),
        pytest.param("price * 100", "price is text", id="arithmetic with a text"),
        pytest.param("price < 0", "price is text.*try_cast\\(price as decimal", id="a text compared with a number"),
        pytest.param("price in (1, 2)", "price is text", id="a text in a list of numbers"),
        pytest.param("0 > price", "price is text", id="a number compared with a text"),
        pytest.param("a; drop table t", "may not have ';", id="two statements"),
        pytest.param("a -- b", "may not have '--'", id="a comment"),
        pytest.param("a /* b */", r"may not have '/\*'", id="a comment inside"),
        pytest.param("${spark.x}", r"may not have '\$", id="a variable of Spark"),
        pytest.param(":name", "may not have ':n'", id="a parameter"),
        pytest.param('"a"', "may not have '\"a'", id="a text in double quotes"),
        pytest.param("concat(a", "leaves a bracket open", id="a bracket that is not closed"),
        pytest.param("a) or (b", "closes a bracket that is not open", id="brackets that leave the expression"),
        pytest.param("'a", "may not have", id="a text that is not closed"),
        pytest.param("  ", "is empty", id="nothing"),
    ],
)
def test_what_is_no_expression_of_the_row_is_refused(sql, told):
    with pytest.raises(ValueError, match=told):
        columns(sql)


def test_columns_are_written_as_the_caller_says_and_texts_stay():
    sql = "concat(`a b`, ' a.b ', c.d, lower(e))"
    assert with_columns(sql, lambda name: f"<{name}>") == "concat ( <a b> , ' a.b ' , <c.d> , lower ( <e> ) )"
