"""Settings: every one is an environment variable `MEANDER_<NAME>`, listed by `meander settings`.

A variable `MEANDER_*` that is none is an error of whoever asks for `settings`: a setting with a typing error in its
name would silently have its default. Whoever has to go on in spite of it asks for `known_settings`.
"""

import os
import re
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lake.errors import SettingsInvalid
from lake.rules import WEIGHTS

# Such weights of as many events as a user can have still add up to a whole number of 64 bits.
MOST_WEIGHT = 1_000
URL_HINT = "a local path or an s3://, gs://, abfs:// or hdfs:// address"
PREFIX = "MEANDER_"
# Names that are read and are no settings, with what they say; tests/test_project.py finds those that are missing here.
OTHER_NAMES = {"MEANDER_HOME": "folder of what `make up` leaves behind; .meander by default"}
# How the variables end that Kubernetes gives to every pod for each Service of its namespace: a release `meander` of
# Airflow's chart has the Service meander-api-server, and so MEANDER_API_SERVER_PORT and seven more.
OF_A_SERVICE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$")


def as_text(weights: Mapping[str, int]) -> str:
    """Write weights as the setting has them.

    >>> as_text({"view": 1, "purchase": 4})
    'view=1,purchase=4'
    """
    return ",".join(f"{behavior}={weight}" for behavior, weight in weights.items())


class Settings(BaseSettings):
    """All settings: the values that differ between a laptop and a cluster, as the environment has them."""

    # An empty variable is one that is not set: compose files pass those, and an empty lake would be the root folder.
    model_config = SettingsConfigDict(env_prefix="MEANDER_", env_ignore_empty=True, extra="ignore", frozen=True)

    lake: str = Field(".meander/lake", description=f"where the tables live: {URL_HINT}")
    landing: str = Field(".meander/landing", description=f"where the shop's log files arrive: {URL_HINT}")
    landing_marker: str = Field(
        "",
        description="file that completes a landing day, such as _SUCCESS, or several: web/_SUCCESS, app/_SUCCESS; "
        "with *, any data file of that name, and a quiet time too: web/*, app/*; empty: a quiet time does; a table "
        "beside the log has those without / and *, or a quiet time",
    )
    landing_quiet_minutes: int = Field(
        10,
        ge=0,
        description="without a marker, or with * in it, minutes in which no file of a landing day of today or "
        "yesterday may have changed before it is complete; older days are complete at once",
    )
    source: str = Field("canonical", description="name of a shipped source, or the path of a YAML file")
    contract: str = Field(
        "",
        description="path of an agreed contract (ODCS), as `meander source contract` writes it; how landing files "
        "differ from it is kept with each day; empty: they are compared with the days before alone",
    )
    pseudonym_key: SecretStr = Field(
        SecretStr(""),
        description="key by which users get pseudonyms at the door: 64 hex digits, or the path of a file with them; a "
        "secret; empty: users keep the shop's own ids",
    )
    identity_map: str = Field(
        "", description=f"where whose each pseudonym is is kept, outside the lake: {URL_HINT}; empty: nowhere, one-way"
    )
    data_docs: str = Field("", description="local folder of the data docs; empty: the lake's own _docs folder")
    docs_url: str = Field("", description="address under which data docs are served; empty: their place in the lake")

    mlflow_uri: SecretStr = Field(
        SecretStr(""),
        description="MLflow tracking store and registry, a secret if it holds a password; "
        "empty: mlflow.db in the folder that holds a local lake",
    )
    model_name: str = Field("meander", description="name of the experiment and of the registered model in MLflow")
    promotion_approval: bool = Field(
        False, description="ask a person in Airflow before a candidate that has passed the gate becomes champion"
    )

    spark_master: str = Field(
        "", description="Spark master, or sc://host:port of a Spark Connect server; empty: local[*]"
    )
    step_server: str = Field(
        "",
        description="socket of the process from which steps that use a Spark Connect server are forked, as `make up` "
        "starts it; empty: each step starts by itself",
    )
    driver_memory: str = Field("4g", description="heap of a local driver")
    shuffle_partitions: int = Field(
        8, ge=1, description="shuffle partitions of a local session; a cluster keeps its own setting"
    )

    session_gap_minutes: int = Field(30, ge=1, le=24 * 60, description="G, longest pause inside a session")
    late_days: int = Field(3, ge=0, description="how many days back late events are put into sessions by the daily run")
    lookback_days: int = Field(30, ge=1, description="W, days of events behind the current interest")
    history_days: int = Field(365, ge=1, description="days of events behind the long-term interest")
    behavior_weights: str = Field(
        as_text(WEIGHTS),
        description="how much one event of each behavior says about interest, whole numbers from 1 to 1000; a behavior "
        "that is left out keeps its own. After a change, make interests and examples again before the next training",
    )
    half_life_days: float = Field(30.0, gt=0, description="age at which an event's long-term weight halves")
    longterm_categories: int = Field(
        0, ge=0, description="categories kept of a user's long-term interest, those with the largest share; 0: all"
    )
    sequence_length: int = Field(50, ge=1, description="L, last events kept for each user")
    horizon_days: int = Field(7, ge=1, description="H, days after T whose events are the labels of an example")
    min_events: int = Field(
        5, ge=1, description="m, events with a category that an example needs on either side of T to be judged migrated"
    )

    expected_hours: int = Field(
        6, ge=0, description="hours after the end of a day by which its tables should be published"
    )

    alert_webhook: SecretStr = Field(
        SecretStr(""), description="address that alerts are posted to as JSON with a `text`; a secret; empty: none"
    )
    alert_notifier: str = Field(
        "", description="class of an Airflow notifier that alerts are handed to as `alert`; empty: none"
    )
    alert_notifier_options: str = Field("{}", description="its arguments as a JSON object, with Airflow's templates")
    alert_quiet_hours: int = Field(6, ge=0, description="hours in which a cause sends no second alert")

    time_floor: date = Field(date(2000, 1, 1), description="an event before this UTC date is rejected")
    max_days_late: int = Field(
        0,
        ge=0,
        le=36500,
        description="days before its landing day that an event may be from; an older one is rejected; 0: any number",
    )
    max_field_length: int = Field(1024, ge=1, description="longest id or query accepted, in characters")
    max_events_per_user_day: int = Field(
        0,
        ge=0,
        description="events of a user and date that are taken of a landing day, the earliest ones; those beyond are "
        "rejected; 0: all",
    )
    max_rejected_share: Decimal = Field(
        Decimal("0.05"), ge=0, le=1, description="share of rejected input rows above which the audit fails"
    )
    publish_good_days: bool = Field(
        True,
        description="where days of a run fail their audit, publish its other days; false: none of them",
    )

    retention_days: int = Field(
        7,
        ge=1,
        description="days that upkeep keeps files of replaced rows, for readers, and stagings not published",
    )
    docs_days: int = Field(
        90, ge=1, description="days that upkeep keeps the data docs of an audit, and what alert was sent of a cause"
    )
    keep_raw_days: int = Field(
        90,
        ge=0,
        description="days that upkeep keeps the text of a rejected row, not the row; 0: for ever",
    )
    keep_events_days: int = Field(
        0, ge=0, description="days that upkeep keeps events, at least MEANDER_HISTORY_DAYS; 0: for ever"
    )
    keep_audits_days: int = Field(
        0, ge=0, description="days that upkeep keeps lines of the history of audits; 0: for ever"
    )
    keep_landing_days: int = Field(0, ge=0, description="days that upkeep keeps landing files; 0: for ever")
    min_group: int = Field(
        5, ge=1, description="users that a group needs to be shown by itself on pages; 1: every group is shown"
    )
    serving_url: SecretStr = Field(
        SecretStr(""),
        description="PostgreSQL for applications, postgresql://user:password@host:port/database; a secret; empty: none",
    )
    serving_schema: str = Field(
        "meander", pattern="^[a-z_][a-z0-9_]{0,39}$", description="schema of the serving store in that database"
    )
    serving_keep: int = Field(7, ge=1, description="generations kept in the serving store, the newest ones")
    serving_max_set_aside: float = Field(
        0.001,
        ge=0,
        le=1,
        description="share of a day's rows that cannot be served, such as those with a NUL in an id, above which a "
        "load is refused; fewer are left out and counted, and one always if the share is not 0",
    )
    serving_max_users: float = Field(
        0.3, ge=0, description="share of users gone, or added, above which a switch is refused"
    )
    serving_max_moved: float = Field(
        0.5, ge=0, description="share of users with another top category above which a switch is refused"
    )
    serving_max_drift: float = Field(
        0.1, ge=0, description="change of the mean probability of a score above which a switch is refused"
    )

    @field_validator("behavior_weights")
    @classmethod
    def _weights_in_order(cls, text: str) -> str:
        """Return the weights of all behaviors in one order, so that equal weights are equal texts."""
        given: dict[str, int] = {}
        for part in text.split(","):
            behavior, _, weight = (piece.strip() for piece in part.partition("="))
            if behavior in given:
                raise ValueError(f"{behavior} has two weights; write one")
            if behavior not in WEIGHTS or not re.fullmatch("[0-9]{1,4}", weight) or not 1 <= int(weight) <= MOST_WEIGHT:
                raise ValueError(
                    f"{part.strip()!r} is no weight of a behavior; write whole numbers from 1 to {MOST_WEIGHT}, such "
                    f"as {as_text(WEIGHTS)}"
                )
            given[behavior] = int(weight)
        return as_text({**WEIGHTS, **given})

    @property
    def weights(self) -> dict[str, int]:
        """The weight of one event of each behavior."""
        parts = (part.partition("=") for part in self.behavior_weights.split(","))
        return {behavior: int(weight) for behavior, _, weight in parts}

    @property
    def docs_folder(self) -> str:
        """Local folder of the data docs of all audits."""
        return self.data_docs or f"{self.lake.rstrip('/')}/_docs"

    @property
    def tracking_uri(self) -> str:
        """Address of the MLflow store: the one that is set, or a SQLite file next to a local lake.

        Raises:
            SettingsInvalid: the lake is not a local path and no store is set.
        """
        if address := self.mlflow_uri.get_secret_value():
            return address
        if "://" in self.lake:
            raise SettingsInvalid(
                f"MEANDER_LAKE={self.lake} is not a local path, so there is no place for a SQLite file next to it; "
                "set MEANDER_MLFLOW_URI to the address of an MLflow server or database"
            )
        return f"sqlite:///{Path(self.lake).resolve().parent / 'mlflow.db'}"

    @property
    def tracking_place(self) -> str:
        """The address of the MLflow store without its password, for people and logs."""
        return re.sub(r"//([^/@]*):[^/@]*@", r"//\1:***@", self.tracking_uri)


SETTINGS = tuple(f"{PREFIX}{name.upper()}" for name in Settings.model_fields)


def settings() -> Settings:
    """Return the current settings.

    A job asks for them some hundred times. They are read anew when a variable has changed, so that a long-lived process
    sees no stale value.

    Raises:
        SettingsInvalid: a `MEANDER_*` variable has an invalid value, or is no setting.
    """
    found, invalid, unknown = _read(_variables())
    if found is None or unknown:
        raise SettingsInvalid("; ".join(invalid + unknown))
    return found


def known_settings() -> Settings:
    """Return the current settings, whatever other `MEANDER_*` variables there are.

    For what has to go on, or is there to tell of them: alerts, the page, the import of DAGs, `meander doctor`; and for
    where the lake is, since all of these ask for it.

    Raises:
        SettingsInvalid: a `MEANDER_*` variable has an invalid value.
    """
    found, invalid, unknown = _read(_variables())
    if found is None:
        raise SettingsInvalid("; ".join(invalid + unknown))
    return found


def _variables() -> frozenset[tuple[str, str]]:
    # In any case: so are they read.
    return frozenset(item for item in os.environ.items() if item[0].upper().startswith(PREFIX))


@lru_cache(maxsize=4)
def _read(variables: frozenset[tuple[str, str]]) -> tuple[Settings | None, tuple[str, ...], tuple[str, ...]]:
    """Return the settings, None if a value is invalid; which are, and which variables are no settings, in words."""
    # An empty one counts as not set, as of settings.
    unknown = tuple(map(_in_words, unknown_names(name for name, value in variables if value)))
    try:
        return Settings(), (), unknown
    except ValidationError as error:
        invalid = (f"{PREFIX}{'.'.join(map(str, e['loc'])).upper()}={e['input']!r}: {e['msg']}" for e in error.errors())
        return None, tuple(invalid), unknown


def unknown_names(names: Iterable[str]) -> list[str]:
    """Return those names, sorted, that neither a setting has, nor anything else that is known.

    One in small letters is none: a job would not be handed it.

    >>> unknown_names(["MEANDER_LAKE", "meander_lake", "MEANDER_HOME", "MEANDER_LAEK"])
    ['MEANDER_LAEK', 'meander_lake']
    >>> unknown_names(["MEANDER_API_SERVER_SERVICE_HOST", "MEANDER_API_SERVER_PORT", "MEANDER_SERVING_PORT"])
    ['MEANDER_SERVING_PORT']
    """
    given = sorted(names)
    # A Service has a host; without one, what ends in _PORT is of a person.
    services = {name.removesuffix("_SERVICE_HOST") for name in given if name.endswith("_SERVICE_HOST")}
    return [
        name
        for name in given
        if name not in SETTINGS
        and name not in OTHER_NAMES
        and not ((end := OF_A_SERVICE.search(name)) and name[: end.start()] in services)
    ]


def _in_words(name: str) -> str:
    """Say that there is no such setting, and which one may be meant; not its value, which may be a password."""
    from difflib import get_close_matches  # nothing else here needs it, and each task would import it

    # Without what all of them have in common.
    known = [other.removeprefix(PREFIX) for other in (*SETTINGS, *OTHER_NAMES)]
    near = get_close_matches(name.upper().removeprefix(PREFIX), known, 1)
    meant = f"did you mean {PREFIX}{near[0]}?" if near else "`meander settings` lists all; remove it, or correct it"
    return f"{name} is set, and there is no such setting: {meant}"
