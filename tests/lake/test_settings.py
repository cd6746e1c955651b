"""Settings come from the environment, and an error names the variable and what it held."""

import re

import pytest
from pydantic import ValidationError

from lake.errors import SettingsInvalid
from lake.settings import known_settings, settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("MEANDER_LATE_DAYS", "three", id="not a number"),
        pytest.param("MEANDER_SESSION_GAP_MINUTES", "0", id="a gap of nothing"),
        pytest.param("MEANDER_SESSION_GAP_MINUTES", "1441", id="a gap of more than a day"),
        pytest.param("MEANDER_MAX_REJECTED_SHARE", "5", id="a percentage instead of a share"),
        pytest.param("MEANDER_TIME_FLOOR", "01/02/2000", id="a date that is not ISO 8601"),
        pytest.param("MEANDER_HALF_LIFE_DAYS", "-1", id="a half-life before birth"),
        pytest.param("MEANDER_HORIZON_DAYS", "0", id="labels of nothing"),
        pytest.param("MEANDER_MIN_EVENTS", "0", id="a judgement from no event"),
        pytest.param("MEANDER_BEHAVIOR_WEIGHTS", "views=1", id="a weight of no behavior"),
        pytest.param("MEANDER_BEHAVIOR_WEIGHTS", "view=2,view=3", id="two weights of one behavior"),
        pytest.param("MEANDER_BEHAVIOR_WEIGHTS", "view=0", id="a weight by which nothing may be left to divide by"),
        pytest.param("MEANDER_BEHAVIOR_WEIGHTS", "view=1001", id="a weight whose sums may be too large"),
        pytest.param("MEANDER_BEHAVIOR_WEIGHTS", "view=1.5", id="a weight that is not whole"),
        pytest.param("MEANDER_BEHAVIOR_WEIGHTS", "view=1,", id="a comma too many"),
        pytest.param("MEANDER_MAX_DAYS_LATE", "36501", id="more than a century, before all dates that Spark counts"),
    ],
)
def test_an_error_names_the_variable_and_what_was_received(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid, match=re.escape(f"{name}='{value}'")):
        settings()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param("MEANDER_LANDNIG", "did you mean MEANDER_LANDING?", id="two letters swapped"),
        pytest.param("MEANDER_SERVING_ULR", "did you mean MEANDER_SERVING_URL?", id="of several with one beginning"),
        pytest.param("MEANDER_HISTORY", "did you mean MEANDER_HISTORY_DAYS?", id="without its end"),
        pytest.param(
            "meander_landnig", "did you mean MEANDER_LANDING?", id="in small letters, in which names are read"
        ),
        pytest.param("meander_home", "did you mean MEANDER_HOME?", id="in which this one is not read"),
        pytest.param("MEANDER_XYZZY", "`meander settings` lists all", id="like none"),
        pytest.param("MEANDER_", "`meander settings` lists all", id="no name at all"),
    ],
)
def test_a_variable_that_is_no_setting_is_named_with_the_nearest_one_and_without_its_value(monkeypatch, name, told):
    monkeypatch.setenv(name, "postgresql://me:geheim@host")
    with pytest.raises(SettingsInvalid, match=rf"^{name} is set, and there is no such setting: {re.escape(told)}") as e:
        settings()
    assert "geheim" not in str(e.value)
    assert str(e.value).endswith(" [docs/runbook.md#settings-invalid]")
    # What has to go on, such as an alert that tells of it, goes on.
    assert known_settings().late_days == 3
    monkeypatch.delenv(name)
    assert settings().late_days == 3


def test_what_is_set_and_no_setting_is_told_with_all_that_is_invalid(monkeypatch):
    monkeypatch.setenv("MEANDER_LATE_DAYS", "-1")
    monkeypatch.setenv("MEANDER_XYZZY", "1")
    monkeypatch.setenv("MEANDER_LAEK", "/lake")
    for ask in (settings, known_settings):
        with pytest.raises(
            SettingsInvalid, match=r"LATE_DAYS='-1': .*; MEANDER_LAEK is .* MEANDER_LAKE.*; MEANDER_XYZZY"
        ):
            ask()


@pytest.mark.parametrize(
    "names",
    [
        ["MEANDER_HOME"],
        # What Kubernetes tells every pod of the Service meander-api-server, and of one that is called meander.
        [
            *("MEANDER_API_SERVER_SERVICE_HOST", "MEANDER_API_SERVER_SERVICE_PORT"),
            *(
                "MEANDER_API_SERVER_SERVICE_PORT_API_SERVER",
                "MEANDER_API_SERVER_PORT",
                "MEANDER_API_SERVER_PORT_8080_TCP",
            ),
            *(f"MEANDER_API_SERVER_PORT_8080_TCP_{part}" for part in ("PROTO", "PORT", "ADDR")),
        ],
        ["MEANDER_SERVICE_HOST", "MEANDER_SERVICE_PORT", "MEANDER_PORT", "MEANDER_PORT_53_UDP_ADDR"],
    ],
    ids=["home", "service", "a service of our name"],
)
def test_names_that_others_set_or_read_are_no_error(monkeypatch, names):
    for name in names:
        monkeypatch.setenv(name, "10.0.0.1")
    assert settings().late_days == 3


def test_what_only_looks_like_a_service_is_an_error(monkeypatch):
    monkeypatch.setenv("MEANDER_API_SERVER_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("MEANDER_API_SERVER_POTR", "80")
    monkeypatch.setenv("MEANDER_SERVING_PORT", "5432")  # there is no MEANDER_SERVING_SERVICE_HOST
    with pytest.raises(SettingsInvalid, match=r"^MEANDER_API_SERVER_POTR is .*; MEANDER_SERVING_PORT is [^;]*$"):
        settings()


def test_an_empty_variable_that_is_no_setting_is_no_error(monkeypatch):
    monkeypatch.setenv("MEANDER_LANDNIG", "")
    assert settings().late_days == 3


def test_the_ends_of_a_range_are_values_too(monkeypatch):
    ends = {
        "session_gap_minutes": (1, 1440),
        "late_days": (0,),
        "max_days_late": (0, 36500),
        "max_rejected_share": (0, 1),
        "expected_hours": (0,),
        "serving_keep": (1,),
        "serving_max_users": (0,),
    }
    for name, values in ends.items():
        for value in values:
            monkeypatch.setenv(f"MEANDER_{name.upper()}", str(value))
            assert getattr(settings(), name) == value


def test_weights_that_are_not_given_stay_and_equal_ones_are_one_text(monkeypatch):
    given = {"view": 2, "search": 1, "favorite": 2, "cart": 3, "purchase": 1000}
    for text in ("view=2,purchase=1000", "purchase=1000 , view=2", "view=2,search=1,favorite=2,cart=3,purchase=1000"):
        monkeypatch.setenv("MEANDER_BEHAVIOR_WEIGHTS", text)
        assert settings().weights == given
        assert settings().behavior_weights == "view=2,search=1,favorite=2,cart=3,purchase=1000"


def test_all_errors_are_told_at_once(monkeypatch):
    monkeypatch.setenv("MEANDER_LATE_DAYS", "-1")
    monkeypatch.setenv("MEANDER_SEQUENCE_LENGTH", "many")
    with pytest.raises(SettingsInvalid) as caught:
        settings()
    assert "MEANDER_LATE_DAYS" in str(caught.value)
    assert "MEANDER_SEQUENCE_LENGTH" in str(caught.value)
    assert "docs/runbook.md#settings-invalid" in str(caught.value)


def test_a_changed_variable_counts_at_once(monkeypatch):
    monkeypatch.setenv("MEANDER_LATE_DAYS", "5")
    assert settings().late_days == 5
    monkeypatch.setenv("MEANDER_LATE_DAYS", "6")
    assert settings().late_days == 6
    monkeypatch.delenv("MEANDER_LATE_DAYS")
    assert settings().late_days == 3
    # A job would not be handed it.
    monkeypatch.setenv("meander_late_days", "7")
    with pytest.raises(SettingsInvalid, match=r"meander_late_days is set, .*did you mean MEANDER_LATE_DAYS\?"):
        settings()


def test_settings_that_all_callers_share_are_changed_by_none_of_them():
    with pytest.raises(ValidationError, match="frozen"):
        settings().late_days = 0


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch):
    # An empty lake would otherwise put the tables into the root folder.
    unset = settings().lake
    monkeypatch.setenv("MEANDER_LAKE", "")
    monkeypatch.setenv("MEANDER_LATE_DAYS", "")
    assert (settings().lake, settings().late_days) == (".meander/lake", 3)
    assert unset == ".meander/lake"


def test_data_docs_lie_in_the_lake_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv("MEANDER_LAKE", "s3://bucket/lake/")
    assert settings().docs_folder == "s3://bucket/lake/_docs"
    monkeypatch.setenv("MEANDER_DATA_DOCS", "/srv/docs")
    assert settings().docs_folder == "/srv/docs"


def test_no_password_is_shown(monkeypatch):
    secret = "geheim"
    monkeypatch.setenv("MEANDER_MLFLOW_URI", f"postgresql+psycopg2://meander:{secret}@host/mlflow")
    monkeypatch.setenv("MEANDER_SERVING_URL", f"postgresql://meander:{secret}@host/shop")
    monkeypatch.setenv("MEANDER_ALERT_WEBHOOK", f"https://chat.example/{secret}")
    assert secret not in repr(settings())
    assert secret not in settings().model_dump_json()
    assert settings().tracking_place == "postgresql+psycopg2://meander:***@host/mlflow"
    assert secret in settings().tracking_uri


def test_an_address_without_a_password_is_shown_whole(monkeypatch):
    for address in ("https://mlflow.example/a@b", "sqlite:////lake/mlflow.db", "https://me@mlflow.example"):
        monkeypatch.setenv("MEANDER_MLFLOW_URI", address)
        assert settings().tracking_place == address
