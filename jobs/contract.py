"""What a supplier is asked to deliver, as an object of the Open Data Contract Standard, and how files differ from it.

The standard (ODCS 3.2, https://bitol-io.github.io/open-data-contract-standard) is a YAML file that catalogs and other
tools read. Here is its part about landing files, from a source and the columns that were seen in files; the part about
the table that is made of them is in expectations/contract.py.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from jobs.drift import MOST_COLUMNS, column_difference, columns_seen, only
from jobs.landing_files import by_version
from jobs.rejections import REASONS
from jobs.source import Source
from jobs.time_pattern import EPOCHS
from jobs.yaml_file import YamlFile
from lake.errors import SettingsInvalid, SourceInvalid
from lake.settings import Settings

API_VERSION = "v3.2.0"
# By the beginning of the type that a column of Parquet or JSON lines has.
LOGICAL_TYPES = {
    **{"int": "integer", "uint": "integer", "float": "number", "double": "number", "decimal": "number"},
    **{"number": "number", "bool": "boolean", "truth": "boolean", "timestamp": "timestamp", "date": "date"},
    **{"list": "array", "struct": "object", "object": "object", "map": "map"},
}
MEANINGS = {
    "user_id": "user",
    "item_id": "item",
    "category_id": "category of the item",
    "query": "what was searched for",
    "price": "price",
    "time": "time of the event",
    "behavior": "what the user did",
}


def landing_object(source: Source, pattern: str, seen: Mapping[str, str], config: Settings) -> dict[str, Any]:
    """Return what is agreed of one kind of landing files.

    Args:
        source: how these files are read.
        pattern: of their names below the folder of the day; empty: of all files.
        seen: their columns and types, as `jobs.drift.columns_seen` returns them; empty if there are no files yet.
        config: the share of rows that may be rejected.
    """
    fields = fields_by_column(source)
    names = list(dict.fromkeys((*seen, *fields)))
    reasons = "; ".join(f"{code}: {why}" for code, why in REASONS.items())
    return {
        "name": name_of(pattern),
        "physicalName": f"dt=YYYY-MM-DD/{pattern or '*'}",
        "physicalType": f"{source.format} file",
        "logicalType": "object",
        "description": f"{source.description.strip()} Files are in the folder of the day on which they arrived.",
        "properties": [column_property(source, name, fields.get(name, []), seen.get(name)) for name in names],
        "quality": [
            {"type": "library", "metric": "rowCount", "mustBeGreaterThan": 0, "description": "a day has rows"},
            {
                "type": "text",
                "dimension": "conformity",
                "description": f"at most {config.max_rejected_share:.2%} of the rows of a day are rejected, for one of "
                f"these reasons: {reasons}",
            },
        ],
    }


def name_of(pattern: str) -> str:
    """Return the name of the object about files whose names match a pattern."""
    return f"landing {pattern}" if pattern else "landing"


def fields_by_column(source: Source) -> dict[str, list[str]]:
    """Return the fields of an event for which each column is read."""
    found: dict[str, list[str]] = defaultdict(list)
    values = {name: getattr(source, name) for name in ("user_id", "item_id", "category_id", "query", "price")}
    for field, value in {**values, "time": source.time.column, "behavior": source.behavior.column}.items():
        for column in value.columns if value else ():
            found[column].append(field)
    return dict(found)


def column_property(source: Source, name: str, fields: list[str], kind: str | None) -> dict[str, Any]:
    """Return what is agreed of one column: its type, and where it is used what for."""
    said: dict[str, Any] = {"name": name, "logicalType": logical_type(kind or "text")}
    if kind:
        said["physicalType"] = kind
    # A value may also be in another column, or be made by an expression that does without this one.
    alone = [value for value in source.required if value.columns == (name,) and value.sql is None]
    if alone and name not in source.may_lack:
        said["required"] = True
    if not fields:
        return {**said, "description": "not read"}
    said["description"] = " and ".join(MEANINGS[field] for field in fields)
    if "time" in fields and source.time.column.sql is None:
        formats = source.time.formats
        # Of several formats, numbers among them, no type is said.
        said |= time_type(formats[0], said["logicalType"]) if len(formats) == 1 else {}
        said["description"] += f": {' or '.join(formats)}, in the zone {source.time.zone} where it says none"
    behavior = source.behavior
    if fields == ["behavior"] and behavior.column and behavior.column.sql is None and behavior.others == "reject":
        said["enum"] = [{"value": value, "description": meaning} for value, meaning in behavior.values.items()]
    said["customProperties"] = [{"property": "meanderFields", "value": fields, "vendor": "meander"}]
    return said


def logical_type(kind: str) -> str:
    """Return the type of the standard for a type that was seen.

    >>> [logical_type(kind) for kind in ("int64", "double", "timestamp[us, tz=UTC]", "text", "number or text")]
    ['integer', 'number', 'timestamp', 'string', 'string']
    """
    if " or " in kind:
        return "string"
    return next((of for beginning, of in LOGICAL_TYPES.items() if kind.startswith(beginning)), "string")


def time_type(form: str, seen: str) -> dict[str, Any]:
    """Return the type of a column of times."""
    if form in EPOCHS:
        return {"logicalType": seen if seen == "number" else "integer"}
    return {"logicalType": "timestamp"} | ({} if form == "iso8601" else {"logicalTypeOptions": {"format": form}})


def contract(source: Source, version: str, objects: list[dict[str, Any]], config: Settings) -> dict[str, Any]:
    """Return a contract.

    Args:
        source: what it is about.
        version: of the contract itself.
        objects: of landing files and tables.
        config: when data is expected, and how long it is kept.
    """
    kept = config.keep_landing_days
    # Sources of several exporters, and versions, may have folders of different days.
    zones = dict.fromkeys(kind.folder_zone for kind in (source, *(version.source for version in source.versions)))
    by_kind = ", by the kind of files" if len(zones) > 1 else ""
    return {
        "version": version,
        "apiVersion": API_VERSION,
        "kind": "DataContract",
        "id": f"meander-{source.name}",
        "name": source.name,
        "status": "active",
        "description": {
            "purpose": f"{source.description.strip()} It is the input of predictions of each user's interest.",
            "usage": "Meander reads the files of a day once it is complete.",
        },
        "schema": objects,
        "slaProperties": [
            {
                "property": "frequency",
                "value": 1,
                "unit": "d",
                "description": f"one folder for each day of the zone {' or '.join(zones)}{by_kind}",
            },
            {
                "property": "latency",
                "value": config.expected_hours,
                "unit": "h",
                "description": "tables of a day are expected so long after its end (UTC)",
            },
            *([{"property": "retention", "value": kept, "unit": "d", "description": "landing files"}] if kept else []),
        ],
    }


def files_by_pattern(source: Source, day: date, files: list[str]) -> dict[str, list[str]]:
    """Return the files of a landing day by the pattern of the version that counts for them; none that has no files."""
    kinds = source.on(day)
    return {
        pattern: names
        for version, names in (by_version(source, files) if files else [])
        for pattern, kind in kinds.items()
        if kind is version
    }


def differences(
    agreed: object, pattern: str, source: Source, files: Sequence[str], *, used_alone: bool = False
) -> list[str]:
    """Return how files differ from a contract, in words: columns that are new, gone, or of another type.

    A column for which the contract names no type was rare or not there when it was written, and is not compared.

    Args:
        agreed: the content of a contract's file.
        pattern: of the names of the files.
        source: how they are read.
        files: some files; the first that has columns is looked at.
        used_alone: of columns that were not agreed, only those that the source reads count: with pseudonyms, another
            name may tell of a person.

    Raises:
        SourceInvalid: the file is no contract, or has nothing about such files.
    """
    about = next((each for each in schema_of(agreed) if each.get("name") == name_of(pattern)), None)
    if about is None:
        raise SourceInvalid(f"the contract has no schema with the name {name_of(pattern)!r}; write it anew")
    columns = agreed_types(about)
    known = {name: kind for name, kind in columns.items() if kind}
    seen = columns_seen(source, files, known)
    # Files without a row of which something could be seen, such as an empty array, lack no column.
    if not seen:
        return []
    if used_alone or len(seen) > MOST_COLUMNS:
        seen = only(seen, {*columns, *source.used_columns})
    return column_difference(known, {name: kind for name, kind in seen.items() if columns.get(name, kind)})


def schema_of(agreed: object) -> list[dict[str, Any]]:
    """Return the objects of a contract: kinds of files, and tables.

    Raises:
        SourceInvalid: the content is no contract.
    """
    objects = agreed.get("schema") if isinstance(agreed, dict) and agreed.get("kind") == "DataContract" else None
    if not isinstance(objects, list):
        raise SourceInvalid(
            "expected a contract of the Open Data Contract Standard (kind: DataContract, with a schema), found other "
            "content; `meander source contract` writes one"
        )
    return [each for each in objects if isinstance(each, dict)]


def read_contract(path: str) -> dict[str, Any]:
    """Return the content of the contract that the settings name.

    Raises:
        SettingsInvalid: the file cannot be read.
        SourceInvalid: it is no contract.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SettingsInvalid(
            f"MEANDER_CONTRACT={path} cannot be read: {error.strerror}; `meander source contract > FILE` writes one, "
            "and without the setting files are compared with the days before alone"
        ) from error
    content: dict[str, Any] = YamlFile(path, data).content
    try:
        schema_of(content)
    except SourceInvalid as error:
        raise SourceInvalid(f"MEANDER_CONTRACT={path}: {error.message}") from None
    return content


def against_contract(
    path: str, source: Source, files: Mapping[date, list[str]], *, used_alone: bool = False
) -> dict[str, Any]:
    """Return what is kept of how the files of landing days differ from an agreed contract; empty if they do not.

    Args:
        path: of the contract; empty: there is none.
        source: of all files.
        files: of each day, with a byte each.
        used_alone: see `differences`.

    Returns:
        `against_contract`: the `file`, its `version`, and the `changes` of each day that has some.
    """
    if not path:
        return {}
    agreed = read_contract(path)
    names = [each.get("name") for each in schema_of(agreed)]
    found: dict[str, list[str]] = {}
    for day, of_day in files.items():
        kinds, lines = source.on(day), []
        for pattern, group in files_by_pattern(source, day, of_day).items():
            # What was agreed is of the kinds of files that there were; of a new one it says nothing.
            told = (
                differences(agreed, pattern, kinds[pattern], group, used_alone=used_alone)
                if name_of(pattern) in names
                else ["nothing is agreed of them"]
            )
            lines += [f"{pattern or 'files'}: {line}" for line in told]
        if lines:
            found[str(day)] = lines
    if not found:
        return {}
    return {"against_contract": {"file": Path(path).name, "version": str(agreed.get("version", "")), "changes": found}}


def agreed_types(about: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the columns of an object of a contract with their types, None where it names none.

    Raises:
        SourceInvalid: a person has written something else in their place.
    """
    properties = about.get("properties") or []
    # Text in place of a list stands for a column that is none.
    properties = properties if isinstance(properties, list) else [str(properties)]
    for each in properties:
        name, kind = (each.get("name"), each.get("physicalType")) if isinstance(each, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(kind, str | None):
            raise SourceInvalid(
                f"the properties of {about['name']!r} in the contract must be a list of columns, each with a `name` "
                f"and, if it is known, a `physicalType`, both texts; found {each!r}. Correct it, or write it anew"
            )
    return {each["name"]: each.get("physicalType") for each in properties}
