"""Logs of many shapes, each described by a source alone: a row is what its log means, or is rejected and says why."""

import csv
import io
import json
import random
import re
import subprocess
import sys
import textwrap
from datetime import date
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import functions as F

from jobs.ingest import to_quarantine
from jobs.raw_rows import read_rows
from jobs.rejections import judge
from jobs.source import NULLS, load_source
from lake.errors import SourceInvalid
from lake.settings import Settings

pytestmark = pytest.mark.spark

DOCUMENT = Path(__file__).parents[2] / "docs" / "sources.md"

VALUES = {"view": "view", "buy": "purchase"}
CSV = {
    "name": "mine",
    "description": "a log of my own",
    "format": "csv",
    "columns": ["time", "user", "event", "item", "price"],
    "user_id": "user",
    "item_id": "item",
    "price": "price",
    "time": {"column": "time", "format": "iso8601"},
    "behavior": {"column": "event", "values": VALUES},
}
JSON = {key: value for key, value in CSV.items() if key not in ("columns", "price")} | {"format": "jsonl"}
TIME = "2025-03-02T10:00:00Z"


@pytest.fixture
def mine(tmp_path):
    """Return a source that says `said` and `changes`; None leaves a key out."""

    def write(said, **changes):
        file = tmp_path / "mine.yaml"
        content = {key: value for key, value in {**said, **changes}.items() if value is not None}
        file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        return load_source(str(file))

    return write


@pytest.fixture
def judged(spark, tmp_path):
    """Deliver files (a text, bytes, or a table for Parquet, by name) on 2 March 2025 and judge their rows.

    They are kept, as the job keeps them: of a condition on rows that are not, Spark would compute all of it twice.
    """
    kept = []

    def deliver(source, **files):
        paths = []
        for name, content in files.items():
            path = tmp_path / "dt=2025-03-02" / name.replace("_", ".")
            path.parent.mkdir(exist_ok=True)
            if isinstance(content, pa.Table):
                pq.write_table(content, path)
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            paths.append(str(path))
        kept.append(judge(read_rows(spark, source, paths), source, Settings()).persist())
        return kept[-1]

    yield deliver
    for rows in kept:
        rows.unpersist()


def told(rows, *columns):
    """Return for each row its reason or outcome, and some columns, in the order of the file.

    A few rows are sorted here: for Spark it would be a job of its own.
    """
    found = rows.select("position", F.coalesce("reason", "outcome"), *columns).collect()
    return [tuple(values) for _, *values in sorted(map(tuple, found), key=lambda row: row[0])]


def documented(word: str) -> dict[str, object]:
    """Return the keys of the one YAML block of the documents that has a word."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (said,) = (yaml.safe_load(block) for block in blocks if word in block)
    return said


ROW = json.dumps({"time": TIME, "user": "u", "event": "buy", "item": {"id": "i"}})
LINES_OF_JSON = {
    ROW: "event",
    f" \t{ROW} \t": "event",
    "{}": "missing_time",
    "{ \t} ": "missing_time",
    # More than one object, or less.
    f"{ROW}}}": "malformed_line",
    f"{ROW}{ROW}": "malformed_line",
    f"{ROW} {{}}": "malformed_line",
    f"{{}} {ROW}": "malformed_line",
    f'{ROW},"more":{{}}': "malformed_line",
    f"{ROW},{{}}": "malformed_line",
    f"{ROW} seen}}": "malformed_line",
    f"{ROW} seen": "malformed_line",
    f"seen {ROW}": "malformed_line",
    f"[{ROW}]": "malformed_line",
    f"[{ROW}]}}": "malformed_line",
    f"[{ROW}": "malformed_line",
    ROW[:-1]: "malformed_line",
    f"{ROW[:-1]}]": "malformed_line",
    ROW[:-2]: "malformed_line",
    ROW[:-3]: "malformed_line",
    f"{ROW[:-1]},}}": "malformed_line",
    f"{ROW[:-1]},{{}}": "malformed_line",
    # A text that is not closed, or closed by what is looked for.
    f'{ROW[:-1]},"x":"}}': "malformed_line",
    f'{ROW[:-1]},"x":"y":"}}': "malformed_line",
    '{"x}': "malformed_line",
    "{x}": "malformed_line",
    "{,}": "malformed_line",
    "{{}": "malformed_line",
    "}": "malformed_line",
    '"x"}': "malformed_line",
    "null}": "malformed_line",
    # Something else where the source has an object.
    ROW.replace('{"id": "i"}', "7"): "malformed_line",
    ROW.replace('{"id": "i"}', "[7]"): "malformed_line",
}


def test_a_line_of_json_is_one_object_from_its_first_to_its_last_character(mine, judged):
    found = told(judged(mine(JSON, item_id="item.id"), a_jsonl="\n".join(LINES_OF_JSON)))
    assert dict(zip(LINES_OF_JSON, [reason for (reason,) in found], strict=True)) == LINES_OF_JSON


@pytest.mark.parametrize("name", ["end", "line", "_broken"])
def test_a_key_of_json_may_have_any_name(mine, judged, name):
    """Also one that Meander gives to what it adds to a line, or takes of it."""
    line = json.dumps({"time": TIME, "user": "u", "event": "buy", name: "i"})
    assert told(judged(mine(JSON, item_id=name), a_jsonl=f"{line}\n{line}}}"), "item_id") == [
        ("event", "i"),
        ("malformed_line", None),
    ]


def test_no_log_can_have_the_key_by_which_the_end_of_a_line_is_told():
    """A line of two objects whose first one had it would be the first, and the second would be lost."""
    told_by = "from jobs.raw_rows import END_KEY; print(END_KEY)"
    drawn = [subprocess.run([sys.executable, "-c", told_by], capture_output=True, check=True).stdout for _ in range(2)]
    assert drawn[0] != drawn[1]


# --- public logs -------------------------------------------------------------------------------------------

ORDER = {"order_id": "o", "products": [{"product_id": "p1", "price": 19.99}, {"product_id": "p2", "category": "toys"}]}
TRACKED = [
    {"event": "Product Viewed", "userId": "u", "anonymousId": "a", "properties": {"product_id": "p1", "price": 5}},
    {"event": "Order Completed", "userId": None, "anonymousId": "a", "properties": ORDER},
    {"event": "Products Searched", "userId": "u", "properties": {"query": "red shoes"}},
    {"event": "Page Scrolled", "userId": "u", "properties": {}},
    {"event": "Product Added", "userId": "u", "properties": {"product_id": None}},
]
BOUGHT = [{"item_id": "i1", "item_category": "c", "price": 2.5}, {"item_id": "(not set)"}]
MEASURED = [
    {"event_name": "purchase", "user_pseudo_id": "p", "items": BOUGHT},
    {"event_name": "page_view", "user_pseudo_id": "p", "items": []},
    {"event_name": "view_search_results", "user_id": "u", "user_pseudo_id": "p"},
    {
        "event_name": "view_search_results",
        "user_pseudo_id": "p",
        "event_params": [
            {"key": "page_title", "value": {"string_value": "search_term"}},
            {"key": "search_term", "value": {"string_value": 'red "shoes" \u00e9 {1}'}},
            {"key": "engaged", "value": {"int_value": "1"}},
        ],
    },
    {
        "event_name": "view_search_results",
        "user_pseudo_id": "p",
        "event_params": [
            {"key": "search_term", "value": {"int_value": "7"}},
            {"key": "x", "value": {"string_value": "y"}},
        ],
    },
]
ACTION = "unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1"
PRODUCTS = "contexts_com_snowplowanalytics_snowplow_ecommerce_product_1"
SHOE = {"id": "p1", "category": "woman/shoes", "price": 59.99, "currency": "EUR"}
SOCK = {"id": "p2", "category": "woman/socks", "price": 5, "currency": "EUR", "quantity": 2}
ENRICHED = [
    {"event": "page_view", "domain_userid": "d"},
    {"event": "unstruct", "domain_userid": "d", ACTION: {"type": "product_view"}, PRODUCTS: [SHOE]},
    {"event": "unstruct", "domain_userid": "d", ACTION: {"type": "list_view", "name": "new"}, PRODUCTS: [SHOE, SOCK]},
    {"event": "unstruct", "user_id": "u", "domain_userid": "d", ACTION: {"type": "add_to_cart"}, PRODUCTS: [SOCK]},
    {
        "event": "unstruct",
        "user_id": "u",
        "domain_userid": "d",
        ACTION: {"type": "transaction"},
        PRODUCTS: [SHOE, SOCK],
    },
    {"event": "unstruct", "user_id": "u", "domain_userid": "d", ACTION: {"type": "transaction"}},
]
DOLL = {"itemSKU": "p1", "itemName": "Doll", "itemCategory": "toys", "price": 12.5, "quantity": 1}
GIFT = {"itemSKU": "p2", "itemName": "Gift", "itemCategory": None, "price": 3, "quantity": 2}
VIEWED = {"productViewSku": "p1", "productViewPrice": "12.5", "productViewCategories": ["toys", "sale"]}
ACTIONS = [
    {"type": "action", "pageTitle": "Home"},
    {"type": "action", "pageTitle": "Doll", **VIEWED},
    {"type": "search", "siteSearchKeyword": "red doll"},
    {"type": "ecommerceAbandonedCart", "itemDetails": [DOLL]},
    {"type": "ecommerceOrder", "orderId": "o", "itemDetails": [DOLL, GIFT]},
]
VISITS = [
    {"visitorId": "v", "userId": None, "actionDetails": [{"timestamp": 1740909600, **action} for action in ACTIONS]},
    {"visitorId": "v", "userId": "u", "actionDetails": []},
]
SHIPPED = {
    "snowplow": (
        "\n".join(json.dumps({"derived_tstamp": "2025-03-02T10:00:00.123Z", **event}) for event in ENRICHED),
        [
            ("ignored", "d", "ignore", None, None, None, None),
            ("event", "d", "view", "p1", "woman/shoes", None, Decimal("59.99")),
            ("ignored", "d", "ignore", "p1", "woman/shoes", None, Decimal("59.99")),
            ("ignored", "d", "ignore", "p2", "woman/socks", None, Decimal(5)),
            ("event", "u", "cart", "p2", "woman/socks", None, Decimal(5)),
            ("event", "u", "purchase", "p1", "woman/shoes", None, Decimal("59.99")),
            ("event", "u", "purchase", "p2", "woman/socks", None, Decimal(5)),
            ("missing_item", "u", "purchase", None, None, None, None),
        ],
    ),
    "matomo": (
        "\n".join(map(json.dumps, VISITS)),
        [
            ("ignored", "v", "ignore", None, None, None, None),
            ("event", "v", "view", "p1", "toys", None, Decimal("12.5")),
            ("event", "v", "search", None, None, "red doll", None),
            ("event", "v", "cart", "p1", "toys", None, Decimal("12.5")),
            ("event", "v", "purchase", "p1", "toys", None, Decimal("12.5")),
            ("event", "v", "purchase", "p2", None, None, Decimal(3)),
            ("missing_time", "u", None, None, None, None, None),  # a visit without an action
        ],
    ),
    "dunnhumby": (
        "SHOP_WEEK,SHOP_DATE,SHOP_WEEKDAY,SHOP_HOUR,QUANTITY,SPEND,PROD_CODE,PROD_CODE_10,PROD_CODE_20,CUST_CODE\n"
        "200607,20060413,5,8,2,2.06,PRD01,CL01,DEP01,CUST01\n200607,20060413,5,20,1,0.5,PRD01,CL01,DEP01,\n"
        "200607,20060230,5,20,1,0.5,PRD01,CL01,DEP01,CUST01\n",
        [
            ("event", "CUST01", "purchase", "PRD01", "CL01", None, Decimal("2.06")),
            ("ignored", None, "purchase", "PRD01", "CL01", None, Decimal("0.5")),  # without a card
            ("unparsable_time", "CUST01", "purchase", "PRD01", "CL01", None, Decimal("0.5")),  # 30 February
        ],
    ),
    "segment": (
        "\n".join(json.dumps({"timestamp": TIME, "type": "track", **call}) for call in TRACKED),
        [
            ("event", "u", "view", "p1", None, None, Decimal(5)),
            ("event", "a", "purchase", "p1", None, None, Decimal("19.99")),
            ("event", "a", "purchase", "p2", "toys", None, None),
            ("event", "u", "search", None, None, "red shoes", None),
            ("ignored", "u", "ignore", None, None, None, None),
            ("missing_item", "u", "cart", None, None, None, None),
        ],
    ),
    "ga4": (
        # BigQuery writes whole numbers as text.
        "\n".join(json.dumps({"event_timestamp": "1740909600000000", **event}) for event in MEASURED),
        [
            ("event", "p", "purchase", "i1", "c", None, Decimal("2.5")),
            ("missing_item", "p", "purchase", None, None, None, None),
            ("ignored", "p", "ignore", None, None, None, None),
            ("event", "u", "search", None, None, None, None),
            ("event", "p", "search", None, None, 'red "shoes" \u00e9 {1}', None),
            # A term that is a number.
            ("event", "p", "search", None, None, "7", None),
        ],
    ),
    "otto": (
        '{"session": 7, "events": [{"aid": 1, "ts": 1740909600000, "type": "clicks"}, '
        '{"aid": 2, "ts": 0, "type": "carts"}]}',
        [
            ("event", "7", "view", "1", None, None, None),
            ("time_before_floor", "7", "cart", "2", None, None, None),
        ],
    ),
    "tmall": (
        "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n"
        "1,2,3,4,5,511,0\n1,2,3,4,,1111,2\n1,2,3,4,5,230,1\n",
        [
            ("event", "1", "view", "2", "3", None, None),
            ("event", "1", "purchase", "2", "3", None, None),
            ("unparsable_time", "1", "cart", "2", "3", None, None),  # 30 February
        ],
    ),
    "jd": (
        "user_id,sku_id,time,model_id,type,cate,brand\n266079.0,138778,2016-01-31 23:59:02,,1,8,403\n"
        "266079.0,138778,2016-01-31 23:59:03,0.0,6,8,403\n,138778,2016-01-31 23:59:03,,4,8,403\n",
        [
            ("event", "266079", "view", "138778", "8", None, None),
            ("ignored", "266079", "ignore", "138778", "8", None, None),
            ("missing_user", None, "purchase", "138778", "8", None, None),
        ],
    ),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_public_log_is_read_as_its_publisher_describes_it(judged, name):
    content, expected = SHIPPED[name]
    rows = judged(load_source(name), log_txt=content)
    columns = ("user_id", "behavior", "item_id", "category_id", "query", "price")
    assert sorted(told(rows, *columns), key=str) == sorted(expected, key=str)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_search_term_of_ga4_is_found_among_the_parameters_of_its_event(judged, kind):
    term = {"key": "search_term", "value": {"string_value": "red shoes", "int_value": None}}
    page = {"key": "page", "value": {"string_value": "x", "int_value": None}}
    row = {"event_timestamp": 1740909600000000, "event_name": "view_search_results", "user_pseudo_id": "p"}
    rows = [{**row, "event_params": params, "items": []} for params in ([page, term], [page], [])]
    content = pa.Table.from_pylist(rows) if kind == "parquet" else "\n".join(map(json.dumps, rows))
    found = told(judged(load_source("ga4"), **{f"a_{kind}": content}), "query")
    assert found == [("event", "red shoes"), ("event", None), ("event", None)]


# Logs with two kinds of files, or more: by their names.
KINDS = {
    "yoochoose": {
        "yoochoose-clicks.dat": (
            "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,S\n"
            "2,2014-04-07T13:56:37.614Z,214662742,7\n",
            [
                ("event", "1", "2014-04-07 10:51:09.277", "view", "214536502", None, None, None),
                ("event", "1", "2014-04-07 10:54:09.868", "view", "214536500", "S", None, None),
                ("event", "2", "2014-04-07 13:56:37.614", "view", "214662742", "7", None, None),
            ],
        ),
        "yoochoose-buys.dat": (
            "420374,2014-04-06T18:44:58.314Z,214537888,12462,1\n420374,2014-04-06T18:44:58.325Z,214537850,0,0\n",
            [
                ("event", "420374", "2014-04-06 18:44:58.314", "purchase", "214537888", None, None, Decimal(12462)),
                ("event", "420374", "2014-04-06 18:44:58.325", "purchase", "214537850", None, None, None),
            ],
        ),
    },
    "diginetica": {
        # 526,309 milliseconds are 8 minutes and 46.309 seconds.
        "train-item-views.csv": (
            "sessionId;userId;itemId;timeframe;eventdate\n1;NA;81766;526309;2016-05-09\n7;7;9;0;2016-05-09\n"
            "1;NA;81766;soon;2016-05-09\n",
            [
                ("event", "session-1", "2016-05-09 00:08:46.309", "view", "81766", None, None, None),
                ("event", "7", "2016-05-09 00:00:00", "view", "9", None, None, None),
                ("missing_time", "session-1", None, "view", "81766", None, None, None),
            ],
        ),
        "train-purchases.csv": (
            "sessionId;userId;timeframe;eventdate;ordernumber;itemId\n150;18278;17100868;2016-05-06;16421;25911\n",
            # 17,100,868 milliseconds are 4 hours, 45 minutes and 0.868 seconds.
            [("event", "18278", "2016-05-06 04:45:00.868", "purchase", "25911", None, None, None)],
        ),
        "train-queries.csv": (
            "queryId;sessionId;userId;timeframe;duration;eventdate;searchstring.tokens;categoryId;items;is.test\n"
            "1;2;NA;1000;293;2016-05-09;24857,22;0;7518,71;FALSE\n3;2;NA;2000;307;2016-05-09;;16;2,5;FALSE\n",
            [
                ("event", "session-2", "2016-05-09 00:00:01", "search", None, None, "24857,22", None),
                ("event", "session-2", "2016-05-09 00:00:02", "search", None, "16", None, None),
            ],
        ),
    },
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_file_of_a_public_log_is_read_as_its_publisher_describes_it(judged, name):
    for file, (content, expected) in KINDS[name].items():
        rows = judged(load_source(name).of(date(2025, 3, 2), file), **{file.replace("_", "."): content})
        columns = ("behavior", "item_id", "category_id", "query", "price")
        found = told(rows, "user_id", F.col("event_time").cast("string"), *columns)
        assert sorted(found, key=str) == sorted(expected, key=str)


REVIEW = {"rating": 1.0, "title": "Ok", "text": "x", "images": [], "asin": "B1", "parent_asin": "B0", "user_id": "AGK"}
REVIEW |= {"timestamp": 1588687728923, "helpful_vote": 0}
# Logs that do not ship: what `meander source init` writes, corrected by hand.
DESCRIBED = {
    "h_and_m": (
        """
        format: csv
        user_id: customer_id
        item_id: article_id
        price: price
        repeats: keep                     # the same article twice in one order is two rows
        time: {column: t_dat, format: yyyy-MM-dd, zone: Europe/Stockholm}
        behavior: {constant: purchase}
        items: {item_id: article_id, category_id: product_type_name}    # articles.csv
        """,
        "t_dat,customer_id,article_id,price,sales_channel_id\n"
        "2018-09-20,000058a1,0663713001,0.0508305,2\n2018-09-20,000058a1,0663713001,0.0508305,2\n",
        [("event", "000058a1", "2018-09-19 22:00:00", "purchase", "0663713001", None, Decimal("0.0508"))] * 2,
    ),
    "amazon_reviews_2023": (
        """
        format: jsonl
        user_id: user_id
        item_id: parent_asin
        time: {column: timestamp, format: epoch_ms}
        behavior:
          # A review of what was bought is a purchase; who has rated it well has liked it, wherever it was bought.
          column:
            sql: >
              case when verified_purchase = 'true' then 'bought' when try_cast(rating as double) >= 4 then 'liked'
              else 'read' end
          values: {bought: purchase, liked: favorite, read: view}
        items: {item_id: parent_asin, category_id: main_category, format: jsonl}    # meta_All_Beauty.jsonl
        """,
        "".join(
            json.dumps({**REVIEW, "rating": rating, "verified_purchase": verified}) + "\n"
            for rating, verified in ((5.0, True), (4.0, False), (1.0, False))
        ),
        [
            ("event", "AGK", "2020-05-05 14:08:48.923", behavior, "B0", None, None)
            for behavior in ("purchase", "favorite", "view")
        ],
    ),
}

# Of the challenge of RecSys 2019: who looks for a hotel, and to which one Trivago sends them on.
CLICKED = """\
user_id,session_id,timestamp,step,action_type,reference,platform,city,device,current_filters,impressions,prices
u,s,1541037460,1,search for poi,Newtown,AU,"Sydney, Australia",m,,,
u,s,1541037522,2,interaction item image,666856,AU,"Sydney, Australia",m,,,
u,s,1541037532,3,interaction item info,666856,AU,"Sydney, Australia",m,,,
u,s,1541037542,4,change of sort order,price only,AU,"Sydney, Australia",m,,,
u,s,1541037602,5,clickout item,109038,AU,"Sydney, Australia",m,by price,3400|1253|109038|66,95|66|501|112
u,s,1541037702,6,search for destination,"Melbourne, Australia",AU,"Melbourne, Australia",m,,,
u,s,1541037802,7,search for item,5001,AU,"Melbourne, Australia",m,,,
u,s,1541037902,8,clickout item,9,AU,"Melbourne, Australia",m,,5001|99,80|75
"""
DESCRIBED["trivago_recsys_2019"] = (
    """
    format: csv
    user_id: user_id
    item_id: {sql: "if(contains(action_type, ' item'), reference, null)"}
    category_id: city
    query: {sql: "if(action_type in ('search for destination', 'search for poi'), reference, null)"}
    # The prices of a click are those of all hotels that were shown, in their order: that of the one that was clicked.
    price:
      sql: >
        split_part(prices, '|', length(split_part(concat('|', impressions, '|'), concat('|', reference, '|'), 1))
        - length(replace(split_part(concat('|', impressions, '|'), concat('|', reference, '|'), 1), '|', '')) + 1)
    time: {column: timestamp, format: epoch_s}
    behavior:
      column: action_type
      values:
        clickout item: cart                     # on to the site where it can be booked; bookings are not in the log
        interaction item rating: view
        interaction item info: view
        interaction item image: view
        interaction item deals: view
        search for item: search
        search for destination: search
        search for poi: search
        change of sort order: ignore
        filter selection: ignore
    """,
    CLICKED,
    [
        ("event", "u", f"2018-11-01 {clock}", behavior, item, f"{city}, Australia", price)
        for clock, behavior, item, city, price in (
            ("01:57:40", "search", None, "Sydney", None),
            ("01:58:42", "view", "666856", "Sydney", None),
            ("01:58:52", "view", "666856", "Sydney", None),
            ("02:00:02", "cart", "109038", "Sydney", Decimal(501)),
            ("02:01:42", "search", None, "Melbourne", None),
            ("02:03:22", "search", "5001", "Melbourne", None),
            ("02:05:02", "cart", "9", "Melbourne", None),  # none of those that were shown
        )
    ]
    + [("ignored", "u", "2018-11-01 01:59:02", "ignore", None, "Sydney, Australia", None)],
)


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_public_log_that_does_not_ship_is_described_in_a_few_lines(tmp_path, judged, name):
    lines, content, expected = DESCRIBED[name]
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: {name}\ndescription: a public log\n{textwrap.dedent(lines)}")
    rows = judged(load_source(str(file)), log_txt=content)
    columns = ("user_id", F.col("event_time").cast("string"), "behavior", "item_id", "category_id", "price")
    assert sorted(told(rows, *columns), key=str) == sorted(expected, key=str)


def test_the_categories_of_diginetica_are_in_its_table_of_items(judged):
    log = load_source("diginetica")
    rows = judged(log.items.as_source(log), a_csv="itemId;categoryId\n139578;1096\n417;NA\n")
    # The time of such a row, which is always, is never judged.
    assert [row[1:] for row in told(rows, "item_id", "category_id")] == [("139578", "1096"), ("417", None)]


def test_the_log_of_the_documents_that_counts_its_days_has_the_times_of_its_first_day(mine, judged):
    said = documented("household_key")
    source = mine(CSV, **{"columns": None, **said, "items": None})
    header = "household_key,BASKET_ID,DAY,PRODUCT_ID,QUANTITY,SALES_VALUE,STORE_ID,TRANS_TIME"
    lines = [
        header,
        "2375,2,1,1004906,1,1.39,364,905",
        "2375,2,32,1004906,1,1.39,364,1631",
        "2375,2,,1004906,1,1,364,1",
    ]
    found = told(judged(source, a_csv="\n".join(lines)), F.col("event_time").cast("string"))
    # Day 1 is taken for 1 January 2015.
    assert found == [("event", "2015-01-01 09:05:00"), ("event", "2015-02-01 16:31:00"), ("missing_time", None)]


# --- CSV in its dialects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", ["\t", "::", "||", "|", ";", "~|~"])
def test_values_are_delimited_by_any_text(mine, judged, delimiter):
    source = mine(CSV, delimiter=delimiter, header=False)
    lines = [delimiter.join([TIME, "u", "view", item, "1.5"]) for item in ("i", f'"a{delimiter}b"')]
    found = told(judged(source, a_csv="\n".join(lines)), "item_id", "price")
    reason = "unusable_text" if delimiter == "\t" else "event"  # no id has a tab
    assert found == [("event", "i", Decimal("1.5")), (reason, f"a{delimiter}b", Decimal("1.5"))]


def test_a_log_without_quotes_has_them_in_its_values(mine, judged):
    lines = [f'{TIME},u,view,24" tv,1', f'{TIME},u,view,"a,2', f'{TIME},u,view,"a","b",2']
    found = told(judged(mine(CSV, quote="", header=False), a_csv="\n".join(lines)), "item_id")
    assert found == [("event", '24" tv'), ("event", '"a'), ("malformed_line", '"a"')]


def test_backslashes_escape_what_stands_behind_them(mine, judged):
    written = {
        r'"say \"hi\""': 'say "hi"',
        r'"say \"hi\", ok"': 'say "hi", ok',
        r'"a\\b"': r"a\b",
        r"a\\b": r"a\b",
        r"a\,b": "a,b",
        r'"x\""': 'x"',
        r'"x\\\",y"': 'x\\",y',
        r'"ends with \\"': "ends with \\",
        r"C:\temp": r"C:\temp",  # an escape of nothing
        "plain": "plain",
    }
    lines = [f"{TIME},u,view,{text},1" for text in written]
    rows = judged(mine(CSV, escape="backslash", header=False), a_csv="\n".join(lines))
    assert told(rows, "item_id") == [("event", text) for text in written.values()]


def test_columns_stand_in_any_order_with_others_between_and_the_header_says_which(mine, judged):
    source = mine(CSV, columns=None)
    rows = judged(
        source,
        a_csv=f'"price", item ,junk,"time",event,user\n1,i,x,{TIME},view,u1\n,"i, 2",x,{TIME},buy,u2\n',
        b_csv=f"sep=,\r\ntime,user,event,item,price\r\n{TIME},u3,view,i,2\r\n",
    )
    found = rows.select("user_id", "item_id", "price", "outcome").collect()
    assert sorted(tuple(row) for row in found) == [
        ("u1", "i", Decimal(1), "event"),
        ("u2", "i, 2", None, "event"),
        ("u3", "i", Decimal(2), "event"),
    ]


def test_lines_are_counted_from_the_top_of_the_file_whatever_stands_above(mine, judged):
    rows = f"{TIME},u,view,i,1\n{TIME},,view,i,1\n"
    header = "time,user,event,item,price\n"
    files = {
        "a_csv": f"sep=,\n{header}{rows}",  # the second row is line 4
        "b_csv": f"{header}{rows}",  # line 3
    }
    source = mine(CSV)
    found = to_quarantine(judged(source, **files), source).select("file", "line").collect()
    assert sorted((row.file[-5:], row.line) for row in found) == [("a.csv", 4), ("b.csv", 3)]
    skipping = mine(CSV, skip_lines=2)
    found = to_quarantine(judged(skipping, c_csv=f"Export\nof 2025\n{header}{rows}"), skipping)
    assert [row.line for row in found.collect()] == [5]


@pytest.mark.parametrize("most", ["0", "9"])
def test_each_row_of_a_long_list_has_the_beginning_of_its_line_alone(mine, judged, monkeypatch, most):
    monkeypatch.setenv("MEANDER_MAX_EVENTS_PER_USER_DAY", most)
    source = mine(JSON, each="all", user_id="user", time={"column": "time", "format": "iso8601"}, item_id="all.item")
    whole = {"user": "u", "time": TIME, "event": "view", "all": [{"item": "漢" * 9000}, {}]}
    line = json.dumps(whole, ensure_ascii=False)
    rows = judged(source, a_jsonl=f"{line}\n").collect()
    assert {row.reason: row.raw for row in rows} == {"field_too_long": line[:8192], "missing_item": line[:8192]}
    # Of a row that is no longer, all of it.
    rows = judged(source, b_jsonl=(shorter := json.dumps(whole | {"all": [{"item": None}]}) + " " * 8000)).collect()
    assert [row.raw for row in rows] == [shorter]


def test_a_value_in_quotes_may_have_several_lines(mine, judged):
    source = mine(CSV, multiline=True, item_id="item", query="price", price=None)
    content = (
        "time,user,event,item,price\n"
        f'{TIME},u1,view,i1,"red\nshoes, ""big"""\n'
        f"{TIME},u2,view,i2,plain\n"
        f'{TIME},u3,view,"i3",""\n'
        f'{TIME},,view,i4,"a\n\nb"\n'
        f"{TIME},u5,view,i5,last\n"
    )
    rows = judged(source, a_csv=content)
    assert told(rows, "item_id", "query") == [
        ("event", "i1", 'red\nshoes, "big"'),
        ("event", "i2", "plain"),
        ("event", "i3", None),
        ("missing_user", "i4", "a\n\nb"),
        ("event", "i5", "last"),
    ]
    assert [(row.line, row.raw[-4:]) for row in to_quarantine(rows, source).collect()] == [(6, '\n\nb"')]


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("utf-16", "utf-16"),
        ("utf-16", "utf-16-be"),
        ("utf-16-le", "utf-16-le"),
        ("latin-1", "latin-1"),
        ("cp1252", "cp1252"),
        ("utf-8-sig", "utf-8-sig"),
        ("sjis", "shift_jis"),
    ],
)
def test_a_log_is_in_the_encoding_that_its_source_says(mine, judged, encoding, written):
    item = "靴" if "jis" in written else "Zürich"
    text = f"time,user,event,item,price\r\n{TIME},u,view,{item},1\r\n{TIME},u,view,\u30b8x,1\r\n"
    text = text if written not in ("latin-1", "cp1252") else text.replace("\u30b8", "ÿ")
    content = text.encode(written)
    if written == "utf-16-be":
        content = b"\xfe\xff" + content
    rows = judged(mine(CSV, encoding=encoding), a_csv=content)
    assert told(rows, "item_id")[0] == ("event", item)
    assert {row[0] for row in told(rows)} == {"event"}


def test_the_replacement_character_is_not_undecodable_where_the_file_has_it(mine, judged):
    lost = "\N{REPLACEMENT CHARACTER}"
    source = mine(CSV, price=None, header=False)
    lines = [f"{TIME},u,view,i,{lost}", f"{TIME},u{lost},view,i,1", f"{TIME},u,view,i,@"]
    rows = judged(source, a_csv="\n".join(lines).encode().replace(b"@", b"\xff" + lost.encode()))
    assert told(rows) == [("event",), ("unusable_text",), ("undecodable",)]
    wide = mine(CSV, price=None, header=False, encoding="utf-16")
    assert told(judged(wide, c_csv="\r\n".join(lines).encode("utf-16"))) == [("event",), ("unusable_text",), ("event",)]
    chinese = mine(CSV, price=None, header=False, encoding="gb18030")
    rows = judged(chinese, b_csv="\n".join(lines).encode("gb18030").replace(b"@", b"\xff"))
    assert told(rows) == [("event",), ("unusable_text",), ("undecodable",)]


# --- values ------------------------------------------------------------------------------------------------


def test_what_surrounds_a_value_is_no_part_of_it(mine, judged):
    around = ["\t", "\u00a0", "\u3000", "\ufeff", "\u200b", "\u2009", " \t ", "\u202f", "\x0b"]
    lines = [f"{blank}{TIME}{blank},{blank}u{blank},{blank}view{blank},i{blank},{blank}1{blank}" for blank in around]
    rows = judged(mine(CSV, header=False), a_csv="\n".join(lines))
    assert set(told(rows, "user_id", "item_id", "price")) == {("event", "u", "i", Decimal(1))}
    assert told(judged(mine(CSV, header=False), b_csv=f"{TIME},a\u00a0b,view,i,1"), "user_id") == [
        ("event", "a\u00a0b")
    ]


def test_what_surrounds_a_value_of_parquet_is_no_part_of_it(mine, judged):
    around = ["\t", "\n", "\v", "\f", "\r", " ", "\u00a0", "\u3000", "\ufeff", " \t "]
    rows = [
        {"time": TIME, "user": f"{blank}u", "event": f"view{blank}", "item": f"{blank}i{blank}"} for blank in around
    ]
    # A word for null is one too; letters of two forms are one; a blank inside stays.
    rows += [{"time": TIME, "user": "u", "event": "view", "item": "\tNULL\n"}]
    rows += [{"time": TIME, "user": "cafe\u0301 1", "event": "view", "item": "NA "}]
    found = judged(mine(JSON), log_parquet=pa.Table.from_pylist(rows))
    outcomes = found.select("reason", "user_id", "item_id").collect()
    assert [tuple(row) for row in outcomes] == [
        *[(None, "u", "i")] * len(around),
        ("missing_item", "u", None),
        ("missing_item", "caf\u00e9 1", None),
    ]
    # Of a rejected row there is the text, as JSON; of an event there is none.
    assert [row.raw and json.loads(row.raw) for row in found.select("raw").collect()] == [
        *[None] * len(around),
        *rows[-2:],
    ]


def test_ids_of_bytes_are_the_same_whatever_other_files_the_day_has(mine, judged):
    ids = [b"cafe\xcc\x81", b"ann\t", "\u3000bob".encode(), b"NULL", b"ok"]
    rows = [
        {"time": TIME, "user": user, "event": "view", "item": "i", "more": {"bytes": [b"a\xff"], "of": [(b"k", b"v")]}}
        for user in ids
    ]
    kinds = {
        "user": pa.binary(),
        "more": pa.struct({"bytes": pa.list_(pa.binary()), "of": pa.map_(*[pa.binary()] * 2)}),
    }
    table = pa.Table.from_pylist(
        rows, pa.schema({**dict.fromkeys(("time", "user", "event", "item"), pa.string()), **kinds})
    )
    other = json.dumps({"time": TIME, "user": "of json", "event": "view", "item": "i"})
    for more in ({}, {"b_jsonl": other}):
        found = judged(mine(JSON), a_parquet=table, **more).where("user_id is null or user_id != 'of json'")
        users = sorted(told(found, "user_id"), key=str)
        assert users == [
            ("event", "ann"),
            ("event", "bob"),
            ("event", "caf\u00e9"),
            ("event", "ok"),
            ("missing_user", None),
        ]
        # The row in the quarantine has its texts too, as a request to forget somebody looks for them.
        (raw,) = (json.loads(row.raw) for row in found.where("outcome = 'rejected'").collect())
        assert raw == {"time": TIME, "user": "NULL", "event": "view", "item": "i",
                       "more": {"bytes": ["a\ufffd"], "of": {"k": "v"}}}  # fmt: skip


def test_files_of_parquet_and_of_text_are_read_together_whatever_their_rows_are(mine, judged):
    row = {"time": TIME, "user": "u", "event": "view", "item": "i"}
    files = {
        "a_parquet": pa.Table.from_pylist([row, {**row, "user": None}]),
        "b_parquet": pa.Table.from_pylist([{**row, "more": 7}, {**row, "more": 8, "user": None}]),
        "c_jsonl": json.dumps({**row, "user": None}),
    }
    rejected = judged(mine(JSON), **files).where("outcome = 'rejected'").select("raw").collect()
    assert sorted(found["raw"] for found in rejected) == sorted(
        [
            '{"time":"2025-03-02T10:00:00Z","event":"view","item":"i"}',
            '{"time":"2025-03-02T10:00:00Z","event":"view","item":"i","more":8}',
            json.dumps({**row, "user": None}),
        ]
    )


def test_numbers_that_were_written_as_fractions_are_ids_where_no_digit_is_lost(mine, judged):
    ids = {
        "100.0": "100",
        "123456789.00": "123456789",
        "-1.0": "-1",
        "1.23456789E8": "123456789",  # as Java and so Spark print a fraction
        "1.0E7": "10000000",
        "1.23456789012345E14": "123456789012345",
        "007": "007",  # a text
        "007.0": "007.0",
        "1.10": "1.10",
        "12.5": "12.5",  # a category of a category
        "1E5": "1E5",
        "a.b": "a.b",
        "10.0.0.0": "10.0.0.0",
        "[vip]7": "[vip]7",
        "{x}": "{x}",
        "truely": "truely",
        "0": "0",
    }
    no_ids = [
        "1.23E+08",
        "1.2E+5",
        "5e+20",
        "1.2345678901234567E19",
        "1.5E0",
        "1.0E-5",
        "true",
        "False",
        '{"a":1}',
        "[1]",
    ]
    lines = [f"{TIME}\tu\tview\t{text}\t1" for text in [*ids, *no_ids]]
    rows = judged(mine(CSV, delimiter="\t", quote="", header=False), a_csv="\n".join(lines))
    assert told(rows, "item_id")[: len(ids)] == [("event", text) for text in ids.values()]
    assert {row[0] for row in told(rows)[len(ids) :]} == {"not_an_id"}


def test_words_for_null_are_no_values(mine, judged):
    # Not the one with quotes, which are none of CSV.
    words = [*(word for word in NULLS if '"' not in word), "null", "nan", "n/a", "UNDEFINED"]
    lines = [f"{TIME},{word},view,i,1\n{TIME},u,view,{word},1\n{TIME},u,view,i,{word}" for word in words]
    found = told(judged(mine(CSV, header=False), a_csv="\n".join(lines)), "price")
    assert found == [("missing_user", 1), ("missing_item", 1), ("event", None)] * len(words)
    own = mine(CSV, header=False, nulls=["leer"])
    lines = [f"{TIME},leer,view,i,1", f"{TIME},LEER,view,i,1", f"{TIME},-,view,i,1"]
    # Rows with a letter beyond ASCII are read in another way.
    lines += [f"{TIME},Leer,view,\u7532,1", f"{TIME},-,view,\u7532,1"]
    found = ["missing_user", "missing_user", "event", "missing_user", "event"]
    assert [row[0] for row in told(judged(own, b_csv="\n".join(lines)))] == found
    # Words may be numbers, as some systems write that there is none.
    digits = mine(CSV, header=False, nulls=["99", "n/a"])
    lines = [f"{TIME},{user},view,i,1" for user in ("99", "9", "98", "n/a", "na")]
    found_of_digits = told(judged(digits, d_csv="\n".join(lines)))
    assert [row[0] for row in found_of_digits] == ["missing_user", "event", "event", "missing_user", "event"]
    # Letters of which the other case is in ASCII: a Turkish capital one, and a long s.
    others = mine(CSV, header=False, nulls=["N\u0130L", "\u017fine"])
    lines = [f"{TIME},nil,view,i,1", f"{TIME},n\u0130l,view,i,1", f"{TIME},-,view,i,1", f"{TIME},sine,view,i,1"]
    found = ["missing_user", "missing_user", "event", "missing_user"]
    assert [row[0] for row in told(judged(others, c_csv="\n".join(lines)))] == found


def test_guests_are_rejected_or_ignored_as_the_source_says(mine, judged):
    lines = "\n".join(f"{TIME},{user},view,i,1" for user in ("0", "-1", "0.0", "", "7", "00"))
    rejected = mine(CSV, header=False, guests={"users": ["0", "-1"]})
    assert told(judged(rejected, a_csv=lines)) == [("missing_user",)] * 4 + [("event",)] * 2
    ignored = mine(CSV, header=False, guests={"users": ["0", "-1"], "are": "ignored"})
    assert told(judged(ignored, a_csv=lines)) == [("ignored",)] * 4 + [("event",)] * 2


def test_prices_are_written_as_in_their_country(mine, judged):
    german = {
        "1,99": "1.99",
        "1.299,00": "1299",
        "1.234.567,5": "1234567.5",
        "12,00 €": "12",
        "€ 12": "12",
        "EUR 12,50": "12.5",
        "12,50\u00a0EUR": "12.5",
        "1 299,00": "1299",
        "1'299,00": "1299",
        "-5,00": "-5",
        "7": "7",
        "1.29": None,  # no group of three
        "1,299.00": None,
        "1.2.99": None,
        "a lot": None,
        "12 Stück": None,
    }
    rows = judged(mine(CSV, delimiter=";", header=False, amounts={"decimal": ","}), a_csv=prices(german))
    assert [row.price for row in rows.orderBy("position").collect()] == [
        text and Decimal(text) for text in german.values()
    ]
    english = {"$1,299.00": "1299", "1,29,900.50": "129900.5", "US$5": "5", "1.299": "1.299", "1.299,00": None}
    rows = judged(mine(CSV, delimiter=";", header=False, amounts={}), b_csv=prices(english))
    assert [row.price for row in rows.orderBy("position").collect()] == [
        text and Decimal(text) for text in english.values()
    ]
    cents = {"1999": "19.99", "5": "0.05", "-100": "-1"}
    rows = judged(mine(CSV, delimiter=";", header=False, amounts={"divide_by": 100}), c_csv=prices(cents))
    assert [row.price for row in rows.orderBy("position").collect()] == [Decimal(text) for text in cents.values()]


def prices(texts):
    return "\n".join(f"{TIME};u;view;i;{text}" for text in texts)


# --- JSON and Parquet --------------------------------------------------------------------------------------


def test_values_inside_of_objects_and_lists_are_named_by_their_path(mine, judged):
    source = mine(
        JSON, user_id=["userId", "anonymousId"], item_id="properties.products.0.id", query="context.page.path"
    )
    good = {"time": TIME, "event": "view"}
    lines = [
        {**good, "userId": "u", "anonymousId": "a", "properties": {"products": [{"id": "p1"}, {"id": "p2"}]}},
        {
            **good,
            "userId": None,
            "anonymousId": "a",
            "properties.products.0.id": "flat",
            "context": {"page": {"path": "/"}},
        },
        {**good, "userId": "null", "anonymousId": 7, "properties": {"products": []}},
        {**good, "userId": "u", "properties": None},
    ]
    rows = judged(source, a_jsonl="\n".join(map(json.dumps, lines)))
    assert told(rows, "user_id", "item_id", "query") == [
        ("event", "u", "p1", None),
        ("event", "a", "flat", "/"),
        ("missing_item", "7", None, None),
        ("missing_item", "u", None, None),
    ]


SESSIONS = [
    {
        "session": 1,
        "events": [{"aid": 10, "ts": 1740909600000, "type": "view"}, {"aid": 11, "ts": 1740909601000, "type": "buy"}],
    },
    {"session": 2, "events": []},
    {"session": 3, "events": [{"aid": 12, "ts": 1740909602000, "type": "wink"}]},
]
EACH = {
    **JSON,
    "each": "events",
    "user_id": "session",
    "item_id": "events.aid",
    "time": {"column": "events.ts", "format": "epoch_ms"},
    "behavior": {"column": "events.type", "values": VALUES},
}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_each_element_of_a_list_is_a_row_and_an_empty_list_is_one_that_is_rejected(mine, judged, kind):
    lines = "\n".join(map(json.dumps, SESSIONS))
    rows = judged(mine(EACH), **{f"a_{kind}": lines if kind == "jsonl" else pa.Table.from_pylist(SESSIONS)})
    found = told(rows, "user_id", "item_id", F.col("event_time").cast("string"), "behavior")
    assert sorted(found, key=str) == [
        ("event", "1", "10", "2025-03-02 10:00:00", "view"),
        ("event", "1", "11", "2025-03-02 10:00:01", "purchase"),
        ("missing_time", "2", None, None, None),
        ("unknown_behavior", "3", "12", "2025-03-02 10:00:02", None),
    ]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_each_element_of_lists_in_a_list_is_a_row_with_what_stands_around_it(mine, judged, kind):
    visits = [
        {
            "user": "u",
            "acts": [
                {"time": TIME, "event": "buy", "order": {"lines": [{"id": "a"}, {"id": "b"}]}},
                {"time": TIME, "event": "view", "id": "c", "order": None},
                {"time": TIME, "event": "buy", "order": {"lines": []}},
            ],
        }
    ]
    source = mine(
        JSON,
        each=["acts", "acts.order.lines"],
        item_id=["acts.order.lines.id", "acts.id"],
        time={"column": "acts.time", "format": "iso8601"},
        behavior={"column": "acts.event", "values": VALUES},
    )
    content = json.dumps(visits[0]) if kind == "jsonl" else pa.Table.from_pylist(visits)
    found = told(judged(source, **{f"a_{kind}": content}), "user_id", "behavior", "item_id")
    assert sorted(found, key=str) == [
        ("event", "u", "purchase", "a"),
        ("event", "u", "purchase", "b"),
        ("event", "u", "view", "c"),
        ("missing_item", "u", "purchase", None),
    ]


def test_a_text_of_several_values_is_a_row_for_each(mine, judged):
    # Impressions of a news log, each with whether it was clicked.
    source = mine(
        CSV,
        columns=["impression", "user", "time", "history", "shown"],
        delimiter="\t",
        quote="",
        header=False,
        price=None,
        each="shown",
        split=" ",
        item_id={"sql": "split_part(shown, '-', 1)"},
        time={"column": "time", "format": "M/d/yyyy h:mm:ss a"},
        behavior={"column": {"sql": "split_part(shown, '-', 2)"}, "values": {"1": "view", "0": "ignore"}},
    )
    lines = ["1\tU1\t2/27/2025 9:05:58 AM\tN9 N8\t N1-0  N2-1 N3-1", "2\tU2\t2/27/2025 9:05:58 PM\t\t"]
    found = told(judged(source, a_tsv="\n".join(lines)), "user_id", "item_id", F.col("event_time").cast("string"))
    assert sorted(found, key=str) == [
        ("event", "U1", "N2", "2025-02-27 09:05:58"),
        ("event", "U1", "N3", "2025-02-27 09:05:58"),
        ("ignored", "U1", "N1", "2025-02-27 09:05:58"),
        ("unknown_behavior", "U2", None, "2025-02-27 21:05:58"),  # nothing was shown
    ]


ITEMS = '[{"id": "a", "price": 1.5}, {"id": "b", "of": {"kind": "c"}}]'


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_list_of_json_that_is_a_text_is_a_row_for_each_of_its_objects(mine, judged, kind):
    changes = {"item_id": "items.id", "category_id": "items.of.kind", "price": "items.price", "columns": None}
    source = mine({**CSV, "format": kind}, each="items", split="json", **changes)
    rows = [
        {"time": TIME, "user": "u", "event": "buy", "items": items}
        for items in (ITEMS, '{"id": "d"}', "[]", "NULL", " ", None, '[{"id": "e", "of": 7}]')
    ]
    if kind == "csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        content = out.getvalue()
    else:
        # JSON may also have the list itself.
        first = {**rows[0], "items": json.loads(ITEMS)}
        content = "\n".join(map(json.dumps, [first, *rows[1:]])) if kind == "jsonl" else pa.Table.from_pylist(rows)
    found = told(judged(source, **{f"a_{kind}": content}), "item_id", "category_id", "price")
    assert sorted(found, key=str) == [
        ("event", "a", None, Decimal("1.5")),
        ("event", "b", "c", None),
        ("event", "d", None, None),  # an object is a list of one
        ("malformed_line", None, None, None),  # a number where the source has an object, as in a line of JSON
        *[("missing_item", None, None, None)] * 4,
    ]


BROKEN_LISTS = [
    '{"id":"a"},{"id":"b"}',  # without brackets
    '[{"id":"a"}] [{"id":"b"}]',
    '[{"id":"a"}],[{"id":"b"}]',
    '[{"id":"a"}],"x":[{"id":"b"}]',
    '{"id":"a"}],[{"id":"b"}',
    '[{"id":"a"}]]}',
    '[{"id":"a"},{"id":"b"',  # cut off
    '[{"id":"a"},',
    "[{broken",
    '[{"id":"a"},7]',  # of two kinds
    "7",
    "no list",
]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_text_that_is_no_whole_list_of_json_is_rejected_and_none_of_its_elements_is_lost_unseen(mine, judged, kind):
    # A search needs no item, so that without its list it would be an event.
    changes = {"item_id": "items.id", "columns": None, "behavior": {"constant": "search"}, "price": None}
    source = mine({**CSV, "format": kind}, each="items", split="json", **changes)
    rows = [{"time": TIME, "user": "u", "items": items} for items in (*BROKEN_LISTS, '[{"id":"a"},{"id":"b"}]')]
    if kind == "csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        content = out.getvalue()
    else:
        content = "\n".join(map(json.dumps, rows)) if kind == "jsonl" else pa.Table.from_pylist(rows)
    found = told(judged(source, **{f"a_{kind}": content}), "item_id")
    assert sorted(found, key=str) == [
        ("event", "a"),
        ("event", "b"),
        *[("malformed_line", None)] * len(BROKEN_LISTS),
    ]


def test_a_list_of_json_may_hold_texts(mine, judged):
    lists = ['["a", 7]', '["a", "b"', '"a", "b"', '{"id": "a"}']
    lines = [json.dumps({"time": TIME, "user": "u", "event": "buy", "items": items}) for items in lists]
    source = mine(JSON, each="items", split="json", item_id="items")
    assert told(judged(source, a_jsonl="\n".join(lines)), "item_id") == [
        ("event", "a"),
        ("event", "7"),
        ("malformed_line", None),
        ("malformed_line", None),
        ("not_an_id", '{"id":"a"}'),
    ]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_list_of_ids_is_a_row_for_each(mine, judged, kind):
    orders = [{"time": TIME, "user": "u", "event": "buy", "items": ["a", "b"]}]
    content = json.dumps(orders[0]) if kind == "jsonl" else pa.Table.from_pylist(orders)
    rows = judged(mine(JSON, each="items", item_id="items"), **{f"a_{kind}": content})
    assert sorted(told(rows, "user_id", "item_id")) == [("event", "u", "a"), ("event", "u", "b")]


def test_behaviors_that_the_source_does_not_name_may_be_ignored(mine, judged):
    behavior = {"column": "event", "values": VALUES, "others": "ignore"}
    lines = "\n".join(f"{TIME},u,{event},i,1" for event in ("view", "scroll", "", "NULL"))
    assert told(judged(mine(CSV, header=False, behavior=behavior), a_csv=lines)) == [
        ("event",),
        ("ignored",),
        ("unknown_behavior",),
        ("unknown_behavior",),
    ]


def test_an_expression_makes_a_behavior_of_several_columns_and_a_time_of_two(mine, judged):
    source = mine(
        CSV,
        columns=["day", "clock", "amount", "order id", "user"],
        header=False,
        item_id={"sql": "concat('i-', `order id`)"},
        price={"sql": "abs(try_cast(amount as decimal(20, 2)))"},
        time={"column": {"sql": "concat(day, ' ', clock)"}, "format": "yyyy-MM-dd HH:mm"},
        behavior={
            "column": {
                "sql": "case when try_cast(amount as decimal(20, 2)) < 0 then 'return' "
                "when `order id` <> '' then 'buy' end"
            },
            "values": {"buy": "purchase", "return": "ignore"},
        },
    )
    lines = ["2025-03-02,10:00,5.5,o1,u", "2025-03-02,10:00,-5.5,o1,u", "2025-03-02,10:00,x,o2,u", "2025-03-02,,1,o3,u"]
    rows = judged(source, a_csv="\n".join(lines))
    assert told(rows, "item_id", "price", F.col("event_time").cast("string")) == [
        ("event", "i-o1", Decimal("5.5"), "2025-03-02 10:00:00"),
        ("ignored", "i-o1", Decimal("5.5"), "2025-03-02 10:00:00"),
        ("event", "i-o2", None, "2025-03-02 10:00:00"),
        ("missing_time", "i-o3", Decimal(1), None),
    ]


def test_of_the_card_log_of_a_bank_payments_are_purchases_and_refunds_are_left_out(mine, judged):
    """By the source of the documents, and amounts with a comma."""
    said = documented("merchant_category")
    source = mine(CSV, columns=None, delimiter=";", amounts={"decimal": ","}, **said)
    lines = ["time;card;merchant;merchant_category;amount", f"{TIME};c1;m1;5411;12,50", f"{TIME};c1;m1;5411;-3,00"]
    lines += [f"{TIME};c2;;5812;1.234,00", f"{TIME};c2;m2;5812;"]
    assert told(judged(source, a_csv="\n".join(lines)), "behavior", "user_id", "category_id", "price") == [
        ("event", "purchase", "c1", "5411", Decimal("12.5")),
        ("ignored", "ignore", "c1", "5411", Decimal(3)),
        ("missing_item", "purchase", "c2", "5812", Decimal(1234)),
        ("event", "purchase", "c2", "5812", None),
    ]


def test_of_what_people_listen_to_a_play_is_a_view_and_a_like_a_favorite(mine, judged):
    said = documented("category_id: artist")
    source = mine(CSV, columns=None, price=None, **said)
    lines = ["time,user,event,item,artist", *(f"{TIME},u,{event},i,a" for event in ("play", "like", "skip", ""))]
    assert told(judged(source, a_csv="\n".join(lines)), "behavior", "category_id") == [
        ("event", "view", "a"),
        ("event", "favorite", "a"),
        ("ignored", "ignore", "a"),
        ("unknown_behavior", None, "a"),
    ]


def test_a_price_is_the_product_of_a_unit_price_and_a_quantity(mine, judged):
    """As the documents write it; a row without one of both has no price."""
    (sql,) = re.findall(r'price: \{sql: "(.*quantity.*)"\}', DOCUMENT.read_text(encoding="utf-8"))
    source = mine(CSV, columns=["time", "user", "event", "item", "unit_price", "quantity"], price={"sql": sql})
    lines = [
        f"{TIME},u,view,i,{unit},{n}"
        for unit, n in (("2.50", "3"), ("0.333", "3"), ("2.50", ""), ("x", "3"), ("-1", "2"))
    ]
    found = told(judged(source, a_csv="\n".join(["time,user,event,item,unit_price,quantity", *lines])), "price")
    assert found == [
        ("event", Decimal("7.5")),
        ("event", Decimal("0.999")),
        ("event", None),
        ("event", None),
        ("negative_price", Decimal(-2)),
    ]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_times_of_one_column_are_in_the_first_of_several_formats_that_fits(mine, judged, kind):
    formats = ["dd.MM.yyyy HH:mm", "iso8601", "epoch_ms"]
    source = mine(CSV if kind == "csv" else JSON, time={"column": "time", "format": formats, "zone": "Europe/Berlin"})
    times = {
        "02.03.2025 11:00": ("event", "2025-03-02 10:00:00", False),
        "2025-03-02T11:00:00": ("event", "2025-03-02 10:00:00", False),
        "2025-03-02T10:00:00Z": ("event", "2025-03-02 10:00:00", False),
        "1740909600000": ("event", "2025-03-02 10:00:00", False),
        # The clocks of Berlin have shown it twice. Of an epoch there is no doubt.
        "27.10.2024 02:30": ("event", "2024-10-27 00:30:00", True),
        "2024-10-27T02:30:00": ("event", "2024-10-27 00:30:00", True),
        "1729989000000": ("event", "2024-10-27 00:30:00", False),
        "2 March 2025": ("unparsable_time", None, False),
    }
    rows = {
        "csv": "\n".join(["time,user,event,item,price", *(f"{time},u,view,i,1" for time in times)]),
        # Numbers as such.
        "jsonl": "\n".join(
            json.dumps({"time": int(time) if time.isdigit() else time, "user": "u", "event": "view", "item": "i"})
            for time in times
        ),
    }
    found = told(judged(source, **{f"a_{kind}": rows[kind]}), F.col("event_time").cast("string"), "doubtful_hour")
    assert dict(zip(times, found, strict=True)) == times


def test_a_pattern_may_have_two_ways_to_write_a_time(mine, judged):
    """As the documents write it: the first in brackets counts that fits."""
    (pattern,) = re.findall(r'`"(\[.*\]\[.*\])"`', DOCUMENT.read_text(encoding="utf-8"))
    source = mine(CSV, time={"column": "time", "format": pattern})
    times = ("2025-03-02 10:00:00", "02.03.2025 10:00", "20250302", "2025-03-02 10:00:0002.03.2025 10:00")
    lines = ["time,user,event,item,price", *(f"{time},u,view,i,1" for time in times)]
    found = told(judged(source, a_csv="\n".join(lines)), F.col("event_time").cast("string"))
    assert found[:3] == [("event", "2025-03-02 10:00:00"), ("event", "2025-03-02 10:00:00"), ("unparsable_time", None)]


def test_an_expression_that_spark_does_not_understand_is_told(mine, judged):
    for sql in ("concat(user item)", "lower(user, item)", "case when user then 'a' end"):
        with pytest.raises(SourceInvalid, match="source mine: Spark does not take"):
            judged(mine(CSV, header=False, item_id={"sql": sql}), a_csv=f"{TIME},u,view,i,1")


def test_fractions_of_parquet_are_ids_where_they_are_whole(mine, judged):
    users = [123456789.0, float("nan"), 1e15, 2.5, 12.5, 1e300, -1.0, 9007199254740994.0]
    table = pa.table({"user": users, "time": [TIME] * 8, "event": ["view"] * 8, "item": pa.array(["i"] * 8)})
    rows = judged(mine(JSON), a_parquet=table)
    found = sorted(told(rows, "user_id"), key=str)
    assert found == sorted(
        [
            ("event", "123456789"),
            ("missing_user", None),
            ("event", "1000000000000000"),
            ("not_an_id", "2.5E+0"),
            ("not_an_id", "12.5E+0"),
            ("not_an_id", "1.0E300"),
            ("event", "-1"),
            ("not_an_id", "9.007199254740994E15"),
        ],
        key=str,
    )


@pytest.mark.parametrize(
    ("column", "options"),
    [
        pytest.param(pd.Timestamp("2025-03-02T10:00:00.000001999", tz="UTC"), {}, id="nanoseconds in UTC"),
        pytest.param(pd.Timestamp("2025-03-02T18:00:00.000001999"), {}, id="nanoseconds of a wall clock"),
        pytest.param(
            pd.Timestamp("2025-03-02T10:00:00.000001999", tz="UTC"),
            {"use_deprecated_int96_timestamps": True},
            id="INT96",
        ),
    ],
)
def test_times_of_parquet_in_nanoseconds_are_read_used_or_not(mine, judged, tmp_path, column, options):
    source = mine(JSON, time={"column": "time", "format": "iso8601", "zone": "Asia/Shanghai"})
    loaded = pa.array([pd.Timestamp("2025-03-02").as_unit("ns")])
    table = pa.table(
        {"user": ["u"], "time": pa.array([column.as_unit("ns")]), "event": ["view"], "item": ["i"], "loaded": loaded}
    )
    path = tmp_path / "dt=2025-03-02" / "part-0"
    path.parent.mkdir()
    pq.write_table(table, path, **options)
    rows = judged(source, **{"part-0": path.read_bytes()})
    assert told(rows, F.col("event_time").cast("string")) == [("event", "2025-03-02 10:00:00.000001")]


def test_an_instant_of_parquet_is_the_time_as_it_stands(mine, judged):
    ten, ever = 1_740_909_600_000_000, 253_402_300_800_000_000
    times = {
        ten + 1: "event",
        None: "missing_time",
        0: "time_before_floor",
        ten + 14 * 3_600_000_000 - 1: "event",  # the last one of the landing day
        ten + 14 * 3_600_000_000: "time_after_landing",
        ever - 1: "time_after_landing",
        ever: "unparsable_time",  # the year 10000
        -62_167_219_200_000_000: "time_before_floor",
        -62_167_219_200_000_001: "unparsable_time",  # before the year 0
    }
    table = {
        "user": ["u"] * len(times),
        "time": pa.array(times, pa.timestamp("us", "UTC")),
        "event": ["view"] * len(times),
        "item": [f"i{n}" for n in range(len(times))],
    }
    for zone in ("UTC", "Europe/Berlin"):
        source = mine(JSON, time={"column": "time", "format": "iso8601", "zone": zone})
        rows = judged(source, **{f"{zone[:3]}_parquet": pa.table(table)})
        found = rows.orderBy("item_id").select(F.coalesce("reason", "outcome"), F.unix_micros("event_time")).collect()
        unread = ("missing_time", "unparsable_time")
        assert [tuple(row) for row in found] == [
            (what, None if what in unread else time) for time, what in times.items()
        ]
    # A text of it, where the source reads it for something else too.
    first = pa.table(table).slice(0, 1)
    rows = judged(mine(JSON, query="time"), query_parquet=first)
    assert told(rows, F.unix_micros("event_time"), "query") == [("event", ten + 1, "2025-03-02 10:00:00.000001Z")]
    # Beside a file of text, in one run.
    text = json.dumps({"user": "v", "time": TIME, "event": "view", "item": "i"})
    both = judged(mine(JSON), both_parquet=first, both_jsonl=text).orderBy("user_id")
    assert [tuple(row) for row in both.select("user_id", F.unix_micros("event_time"), "outcome").collect()] == [
        ("u", ten + 1, "event"),
        ("v", ten, "event"),
    ]


def test_parquet_files_whose_types_differ_in_name_alone_are_one_log(mine, judged):
    source = mine(JSON, price="price")
    row = {"user": ["u"], "time": [TIME], "event": ["view"]}
    rows = judged(
        source,
        a_parquet=pa.table({**row, "item": ["i"], "price": [1.5]}),
        b_parquet=pa.table({**row, "item": pa.array(["i"], pa.large_string()), "price": pa.array([None], pa.null())}),
    )
    assert sorted(told(rows, "item_id", "price"), key=str) == [("event", "i", Decimal("1.5")), ("event", "i", None)]


def test_fractions_of_json_are_times_and_scientific_notation_is_not(mine, judged):
    source = mine(JSON, time={"column": "time", "format": "epoch_s"})
    times = ["1740909600", "1740909600.25", '"1740909600.5"', "1740909600.0", "1.7409096E9", '"1.7409096E+9"', "1.74e9"]
    lines = [f'{{"user": "u", "time": {time}, "event": "view", "item": "i"}}' for time in times]
    rows = judged(source, a_jsonl="\n".join(lines))
    assert told(rows, F.col("event_time").cast("string")) == [
        ("event", "2025-03-02 10:00:00"),
        ("event", "2025-03-02 10:00:00.25"),
        ("event", "2025-03-02 10:00:00.5"),
        ("event", "2025-03-02 10:00:00"),
        *[("unparsable_time", None)] * 3,
    ]


def test_rows_in_any_dialect_are_read_as_they_were_written(mine, judged):
    rng = random.Random(7)
    items = ["".join(rng.choices('ab,;"\\|\n', k=rng.randint(1, 6))) + "x" for _ in range(300)]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";", lineterminator="\n")
    for item in items:
        writer.writerow([TIME, "u", "view", f"i{item}", "1"])
    source = mine(
        CSV, delimiter=";", header=False, multiline=True, item_id=None, query="item", behavior={"constant": "search"}
    )
    assert told(judged(source, a_csv=out.getvalue()), "query") == [("event", f"i{item}") for item in items]
