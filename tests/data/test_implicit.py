"""Logs without ratings and logs without times, counts, and scales that are set."""

import gzip

import numpy as np
import pytest

from configs import data
from configs.base import base
from r2rec_jax.data import prepared
from r2rec_jax.data.cleaning import Rules
from r2rec_jax.data.rating_scale import Scale
from r2rec_jax.data.sources import make_dataset
from r2rec_jax.data.split_audit import audit
from r2rec_jax.runtime.errors import UserError

NOON = 1394020800


def config_of(folder, text: str, **table):
    (folder / "log.csv").write_text(text, encoding="utf-8")
    config = base().data
    config.update({"source": "table", "raw": str(folder), "min_likes": 2, "candidates": 3})
    config.sizes = {"evaluation": 2}
    config.table.update({"ratings": "log.csv"} | table)
    return config


def log_of(columns: str, ratings=lambda _, k: 3 + k % 3) -> str:
    """Five users of six rows each, user by user, whose clock runs against the file's order."""
    rows = [
        {"user": f"u{u}", "item": f"i{(u * 5 + k * 7) % 23}", "rating": ratings(u, k), "time": NOON - k}
        for u in range(5)
        for k in range(6)
    ]
    names = columns.split(",")
    return "\n".join([columns, *(",".join(str(row[name]) for name in names) for row in rows)]) + "\n"


def items_in_order(dataset, user: int) -> list[str]:
    log = dataset.interactions
    rows = slice(int(log.offsets[user]), int(log.offsets[user + 1]))
    return [dataset.catalog.item_ids[item] for item in log.item[rows]]


@pytest.mark.parametrize("columns", ["user,item", "user,item,rating", "user,item,time"])
def test_what_is_not_there(tmp_path, columns):
    names = {name: name if name in columns else "" for name in ("rating", "time")}
    dataset = make_dataset(config_of(tmp_path, log_of(columns), **names))
    audit(dataset)
    in_file = [f"i{(2 * 5 + k * 7) % 23}" for k in range(6)]
    expected = in_file[::-1] if "time" in columns else in_file
    assert items_in_order(dataset, 2) == expected
    if "rating" in columns:
        assert (dataset.scale, dataset.split.like_above) == (Scale(), 3)
    else:
        assert (dataset.scale.kind, dataset.split.like_above) == ("none", 0)
        assert set(dataset.interactions.rating) == {1}
        assert dataset.catalog.item_ids[dataset.split.truth[2]] == expected[-1]
    assert dataset.clock == ("time" if "time" in columns else "order")


def test_an_order_is_kept_and_asks_for_no_clock(tmp_path):
    config = config_of(tmp_path, log_of("user,item"), rating="", time="")
    dataset = make_dataset(config)
    prepared.save(dataset, tmp_path / "data")
    loaded = prepared.load(tmp_path / "data")
    assert (loaded.clock, loaded.scale) == ("order", dataset.scale)
    assert prepared.read_manifest(tmp_path / "data")["protocol"]["clock"] == "order"
    with pytest.raises(UserError, match=r"has no times, only an order: data\.before_target_time"):
        loaded.truth_time(int(loaded.split.users["evaluation"][0]))
    config.before_target_time = True
    with pytest.raises(UserError, match=r"data\.before_target_time needs times"):
        make_dataset(config)


def test_counts_of_plays(tmp_path):
    text = log_of("user,item,rating,time", lambda _, k: 1 + (k == 5) * 100 + k % 2)
    dataset = make_dataset(config_of(tmp_path, text))
    assert (dataset.scale.kind, dataset.split.like_above) == ("counts", 0)
    assert np.all(dataset.split.truth >= 0)


@pytest.mark.parametrize(
    ("scale", "ratings", "like_above"),
    [("", (2, 4, 10), 6), ("", (0.5, 4.5, 5), 3), ("1:7:1", (1, 2, 5), 4), ("-1:1:1", (-1, 0, 1), 0)],
)
def test_scales_found_and_set(tmp_path, scale, ratings, like_above):
    config = config_of(tmp_path, log_of("user,item,rating,time", lambda _, k: ratings[k % 3]))
    config.scale, config.min_likes = scale, 1
    dataset = make_dataset(config)
    assert dataset.split.like_above == like_above and dataset.scale.like_above == like_above
    config.like_above = ratings[0]
    assert make_dataset(config).split.like_above == ratings[0]


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (
            "1:5:1",
            r"log\.csv row 3: the rating 10 is not on the scale of 1 to 5 in steps of 1 \(20 ",
        ),
        ("none", r"log\.csv row 1: the rating 4 is not on the scale"),
        ("stars", r"data\.scale='stars': use LEAST:MOST:STEP"),
    ],
)
def test_ratings_off_the_scale_are_located(tmp_path, scale, message):
    config = config_of(tmp_path, log_of("user,item,rating,time", lambda _, k: (4, 5, 10, 10, 8, 6)[k]))
    config.scale = scale
    with pytest.raises(UserError, match=message):
        make_dataset(config)


def test_generated_ratings_have_a_scale_too():
    config = base().data
    config.update({"source": "generated", "generated_users": 50, "scale": "1:5:1"})
    config.sizes = {"evaluation": 2}
    assert make_dataset(config).scale == Scale()
    config.scale = "counts"
    assert make_dataset(config).scale.kind == "counts"
    config.scale = "2:10:2"
    with pytest.raises(UserError, match="generated ratings row 3: the rating 5"):
        make_dataset(config)


def test_no_scale_names_file_and_setting(tmp_path):
    config = config_of(tmp_path, log_of("user,item,rating,time", lambda u, k: (k + 1) ** 0.5 * (u + 1)))
    with pytest.raises(UserError, match=r"log\.csv: .* set data\.scale"):
        make_dataset(config)


def test_zeros_of_amazon_are_no_ratings(make_raw):
    raw = make_raw("amazon-2023")
    expected = len(raw.read()[0].interactions)
    content = gzip.decompress(raw.ratings.read_bytes())
    more = b'{"user_id": "U1", "parent_asin": "I9", "rating": 0.0, "timestamp": 1262304000000}\n'
    raw.ratings.write_bytes(gzip.compress(content + more))
    dataset, counts = raw.read()
    assert len(dataset.interactions) == expected and counts["ratings_of_zero_stars"] == 1


def test_the_preset_asks_nothing_of_ratings():
    config = data.get_config("implicit")
    assert (config.data.source, config.data.table.rating, config.data.table.time) == ("table", "", "")
    assert config.annotate.tasks == ("ranking",) and config.prompt.wording == "products"


def test_small_sets_name_the_size_to_lower(tmp_path):
    config, rules = config_of(tmp_path, log_of("user,item,rating,time")), Rules()
    config.sizes = {"sft": 1, "grpo": 1, "validation": 0, "evaluation": 8}
    with pytest.raises(UserError, match=r"10 users but only 5 are eligible, .*sizes\.evaluation=3") as error:
        make_dataset(config)
    assert "sft" not in str(error.value)
    config.sizes = {"sft": 1, "grpo": 1, "validation": 0, "evaluation": 3}
    assert len(make_dataset(config, rules=rules).split.users["validation"]) == 0
    config.sizes = {"sft": 40, "grpo": 30, "validation": 10, "evaluation": 20}
    with pytest.raises(UserError, match=r"sizes\.evaluation=1 .*sizes\.grpo=1 .*sizes\.sft=2"):
        make_dataset(config)
    config.sizes, config.candidates = {"evaluation": 2}, 40
    with pytest.raises(UserError, match=r"--config\.data\.candidates=\d+") as error:
        make_dataset(config)
    config.candidates = int(str(error.value).rpartition("=")[2])
    make_dataset(config)
    config.min_likes = 99  # sizes of 0 are no remedy where nobody is eligible
    with pytest.raises(
        UserError, match=r"only 0 are eligible, .*: lower data\.min_likes or data\.like_above"
    ):
        make_dataset(config)
