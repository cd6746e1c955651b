"""What is imported in a block without some modules; afterwards they are there again."""

import sys

import pytest

from lake.imports import absent, empty


def test_in_the_block_a_module_is_not_installed_and_afterwards_it_is():
    sys.modules.pop("colorsys", None)
    with absent("colorsys"), pytest.raises(ModuleNotFoundError):
        import colorsys
    import colorsys

    assert colorsys.rgb_to_hsv(1, 0, 0) == (0, 1, 1)


def test_in_the_block_a_module_and_its_part_hold_nothing_and_afterwards_all(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "wsgiref"]:
        monkeypatch.delitem(sys.modules, name)
    with empty("wsgiref", "wsgiref.util"):
        import wsgiref.util
        from wsgiref import util

        assert util is wsgiref.util
        assert not hasattr(util, "guess_scheme")
    from wsgiref.util import guess_scheme

    assert guess_scheme({"HTTPS": "on"}) == "https"


def test_what_has_been_imported_already_stays():
    import json

    with absent("json"), empty("json", "json.decoder"):
        import json as again
    assert again is json
    assert sys.modules["json"] is json


def test_after_an_error_modules_are_there_again():
    sys.modules.pop("colorsys", None)
    with pytest.raises(KeyError), absent("colorsys"):
        raise KeyError
    import colorsys

    assert colorsys.rgb_to_hsv(1, 0, 0) == (0, 1, 1)
