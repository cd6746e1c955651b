"""Write docs/tables.md and docs/settings.md from the code, as `make docs`. What they list is written nowhere else."""

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pyspark.sql.types import DataType

from lake import schemas
from lake.serving.layout import COLUMNS as SERVED
from lake.settings import OTHER_NAMES, Settings
from lake.tables import TABLES, TableFacts

FOLDER = Path(__file__).parents[1] / "docs"
KINDS: dict[Any, str] = {
    str: "text",
    SecretStr: "text, a secret",
    int: "whole number",
    float: "number",
    Decimal: "number",
    date: "date",
    bool: "True or False",
}

TABLES_PAGE = """# Tables

Written by `make docs` from `lake/tables.py` and `lake/schemas.py`. The rules behind the columns are in
[design.md](design.md); capital letters such as W and H are settings, named in [settings.md](settings.md).
"""
SETTINGS_PAGE = """# Settings

Written by `make docs` from `lake/settings.py`. Environment variables, read again by each command. One that begins with
`MEANDER_` and is not listed here is [an error](runbook.md#settings-invalid), unless it is empty, or Kubernetes sets it
for a Service.
"""


def markdown_table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown.

    >>> print(markdown_table(["a", "b"], [["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def listed(names: Iterable[str]) -> str:
    """Return names as code, with commas.

    >>> listed(["dt", "landed"])
    '`dt`, `landed`'
    """
    return ", ".join(f"`{name}`" for name in names)


def kind(column: DataType) -> str:
    """Return the type of a column, as code; of structs only that they are some."""
    name = column.simpleString()
    return "array of structs" if name.startswith("array<struct") else f"`{name}`"


def begins_with(table: str) -> str:
    """Return the table that this one is made from and whose columns it begins with; empty when there is none."""
    names = schemas.TABLES[table].schema.fieldNames()
    for read in TABLES[table].reads:
        spec = schemas.TABLES[read]
        carried = [name for name in spec.schema.fieldNames() if name not in spec.partition_by]
        if names[: len(carried)] == carried:
            return read
    return ""


def columns_of(table: str) -> str:
    """Return the columns of a table; those that it takes over from another one are not listed again."""
    fields = list(schemas.TABLES[table].schema)
    source = begins_with(table)
    if source:
        taken_over = set(schemas.TABLES[source].schema.fieldNames()) - set(TABLES[table].partition_by)
        fields = [field for field in fields if field.name not in taken_over]
    rows = [[f"`{field.name}`", kind(field.dataType), field.metadata["comment"]] for field in fields]
    if table != "predictions":
        text = markdown_table(["column", "type", "what it is"], rows)
    else:
        # Applications read this one in PostgreSQL.
        rows = [[name, inside, f"`{SERVED[name.strip('`')]}`", comment] for name, inside, comment in rows]
        text = markdown_table(["column", "type", "type in PostgreSQL", "what it is"], rows)
    return f"The columns of [`{source}`](#{source}), then:\n\n{text}" if source else text


def section(table: str, facts: TableFacts) -> str:
    """Return what there is to say of one table."""
    together = [name for name, other in TABLES.items() if other.group == facts.group and name != table]
    rows = [
        ["one row is", facts.meaning.replace(" dt", " `dt`")],
        ["made by", f"`{facts.made_by}`, in `{facts.made_in}`"],
        ["reads", listed(facts.reads) or "landing files"],
        ["partitioned by", listed(facts.partition_by)],
        ["a run replaces", f"its values of `{facts.owned_by}`, each as a whole"],
        ["each landing day has a partition", "yes" if facts.every_day else "no"],
        *([["audited and published with", listed(together)]] if together else []),
    ]
    return f"\n## `{table}`\n\n{markdown_table(['', ''], rows)}\n\n{columns_of(table)}\n"


def tables_page() -> str:
    """Return docs/tables.md."""
    return TABLES_PAGE + "".join(section(table, facts) for table, facts in TABLES.items())


def settings_page() -> str:
    """Return docs/settings.md."""
    rows = [
        [
            f"`MEANDER_{name.upper()}`",
            KINDS[field.annotation],
            f"`{field.default}`" if str(field.default) else "",
            field.description or "",
        ]
        for name, field in Settings.model_fields.items()
    ]
    others = "".join(f"\n`{name}` is no setting of the jobs: {said}.\n" for name, said in OTHER_NAMES.items())
    return f"{SETTINGS_PAGE}\n{markdown_table(['variable', 'type', 'default', 'what it says'], rows)}\n{others}"


PAGES = {"tables.md": tables_page, "settings.md": settings_page}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
