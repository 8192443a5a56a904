"""Declared sections: into a config, out of it again, and what is refused on the way."""

import json

import pytest
from ml_collections import ConfigDict

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.fields import (
    Section,
    declaration,
    field,
    leaves,
    named,
    optional,
    read,
    required,
    section,
    subset,
    to_config_dict,
)
from r2rec_jax.runtime.ranges import BUCKETS, one_of, whole


@declaration
class Wheel(Section):
    WHERE = "wheel"
    kind: str = field("plain", "What it is.", one_of("plain", "spoked"))
    size: int = field(3, "How large it is.", whole(1, 9))

    @classmethod
    def variant(cls, config):
        return Spoked if config.get("kind") == "spoked" else cls


@declaration
class Spoked(Wheel):
    kind: str = field("spoked", "What it is.", one_of("plain", "spoked"))
    spokes: int = required("How many spokes it has.", whole(1))


@declaration
class Cart(Section):
    OTHERS = Wheel

    name: str = field("", "What it is called.")
    most: float | None = field(None, "What it carries; None: anything.")
    widths: tuple[int, ...] = field((1, 2), "How wide it may be.", BUCKETS)
    front: Wheel = section(Wheel())
    back: Wheel | None = optional(Wheel)
    spare: dict[str, Wheel] = named(Wheel, "Others that it carries.")
    changes: dict = subset(Wheel, "What differs in winter.")


FULL = Cart(
    name="x", back=Spoked(spokes=7), spare={"a b": Wheel(size=9), "c": Spoked(spokes=2)}, changes={"size": 2}
)


@pytest.mark.parametrize("cart", [Cart(), FULL])
def test_a_section_comes_back_from_its_config(cart):
    config = to_config_dict(cart)
    assert read(Cart, config) == cart
    # As a workdir keeps it: JSON has no tuples.
    assert Cart.read(ConfigDict(json.loads(json.dumps(config.to_dict())))) == cart


def test_a_config_holds_values_as_flags_set_them():
    config = to_config_dict(Cart())
    assert config.get_type("most") is float and config.most is None
    assert config.front.to_dict() == {"kind": "plain", "size": 3}
    assert "back" not in config and config.spare.to_dict() == {}
    config.most = 2.0
    assert read(Cart, config).most == 2.0
    with pytest.raises(TypeError):
        config.front.size = "large"


def test_what_a_section_lacks_has_its_default():
    assert read(Cart, ConfigDict({"name": "y"})) == Cart(name="y")
    with pytest.raises(UserError, match=r"^spare\.c\.spokes is missing: How many spokes it has\.$"):
        read(Cart, ConfigDict({"spare": {"c": {"kind": "spoked"}}}))


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"front.size": 10}, "cart.front.size=10: use a whole number from 1 to 9"),
        ({"front.sizes": 1}, "cart.front.sizes is unknown: use one of kind, size"),
        ({"back.spokes": 0}, "cart.back.spokes=0: use a whole number from 1 to 2147483647"),
        ({"spare.a b.kind": "flat"}, "cart.spare.a b.kind='flat': use one of plain, spoked"),
        ({"widths": (2, 1)}, "cart.widths=(2, 1): use a tuple of at least one"),
    ],
)
def test_the_whole_dotted_name_is_in_the_refusal(changed, line):
    config = to_config_dict(FULL)
    for name, value in changed.items():
        *path, last = name.split(".")
        inner = config
        for part in path:
            inner = inner[part]
        with inner.unlocked():
            inner[last] = value
    with pytest.raises(UserError) as caught:
        read(Cart, config, "cart")
    assert str(caught.value).startswith(line)


def test_an_instance_keeps_its_ranges():
    with pytest.raises(UserError, match=r"^wheel\.size=0: use a whole number from 1 to 9$"):
        Wheel(size=0)


def test_leaves_are_the_declared_fields():
    config = to_config_dict(FULL)
    config.own, config.third = 5, {"kind": "spoked", "spokes": 4}
    found = {name: (about.help, value) for name, about, value in leaves(Cart, config)}
    assert found.keys() == {
        *("name", "most", "widths", "front.kind", "front.size", "back.kind", "back.size", "back.spokes"),
        *("spare.a b.kind", "spare.a b.size", "spare.c.kind", "spare.c.size", "spare.c.spokes"),
        *("changes.size", "third.kind", "third.spokes"),
    }
    assert found["third.spokes"] == ("How many spokes it has.", 4)
