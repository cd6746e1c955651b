"""The serving store of the settings of a test: what an entry point does before it calls lake/serving."""

from contextlib import AbstractContextManager
from datetime import date
from typing import Any

from jobs.serve import load as load_by_settings
from lake.serving import pointer
from lake.serving.pointer import Limits
from lake.serving.store import Store, open_store
from lake.settings import settings


def opened() -> AbstractContextManager[Store]:
    return open_store(settings())


def load(day: date, run_id: str, **more: Any) -> dict[str, Any]:
    return load_by_settings(settings(), day, run_id, **more)


def switch(store: Store, day: date, run_id: str, **more: Any) -> dict[str, Any]:
    return pointer.switch(store, day, run_id, Limits.of(settings()), **more)


def rollback(store: Store, run_id: str, **more: Any) -> dict[str, Any]:
    return pointer.rollback(store, run_id, Limits.of(settings()), **more)
