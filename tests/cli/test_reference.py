"""docs/reference.md: its tables are those of the declarations, and every config field is in them."""

import re

import pytest

from r2rec_jax.cli.overrides import flatten
from r2rec_jax.cli.reference import BEGIN, PAGE, declarations, with_fields
from r2rec_jax.runtime.errors import UserError
from tests.configs.test_configs import build


def test_the_page_is_up_to_date():
    page = PAGE.read_text(encoding="utf-8")
    assert with_fields(page) == page, "run `make docs`"


def test_every_field_of_a_config_has_a_row():
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    for config in (build("grpo"), build("pretrain_tiny"), build("baselines"), build("eval", "compared")):
        assert {field.split(".")[-1] for field in flatten(config)} <= rows


def test_a_section_comes_once_and_after_what_it_extends():
    found = declarations()
    assert len(set(found)) == len(found)
    for place, kind in enumerate(found):
        assert not [one for one in found[place:] if one is not kind and issubclass(kind, one)]


def test_what_is_outside_the_markers_stays():
    page = with_fields(f"above\n{BEGIN}\nwritten by hand\n<!-- config fields: end -->\nbelow\n")
    assert page.startswith("above\n") and page.endswith("\nbelow\n") and "written by hand" not in page
    with pytest.raises(UserError, match="config fields: end"):
        with_fields(f"above\n{BEGIN}\n")
