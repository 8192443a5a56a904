import dataclasses
import hashlib
import json
import pickle

import numpy as np
import pytest

from r2rec_jax.data.interactions import Interactions
from r2rec_jax.data.prepared import Dataset, candidates_hash, load, read_manifest, save
from r2rec_jax.data.rating_scale import Scale
from r2rec_jax.runtime.errors import UserError


@pytest.fixture
def folder(small_dataset, tmp_path):
    path = tmp_path / "prepared"
    save(small_dataset, path, source="generated", licence="Apache-2.0")
    return path


def test_round_trip(small_dataset, folder):
    loaded = load(folder)
    assert loaded.name == small_dataset.name
    for column in ("user", "item", "rating", "time", "offsets"):
        mine, theirs = (getattr(d.interactions, column) for d in (small_dataset, loaded))
        assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
    for column in ("truth", "cutoff", "candidates"):
        mine, theirs = (np.array(getattr(d.split, column)) for d in (small_dataset, loaded))
        assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
    for name, users in small_dataset.split.users.items():
        assert np.array_equal(users, loaded.split.users[name])
    assert list(loaded.catalog.title) == small_dataset.catalog.title
    assert list(loaded.catalog.genres) == small_dataset.catalog.genres
    assert list(loaded.catalog.demographics) == small_dataset.catalog.demographics
    assert np.array_equal(loaded.catalog.year, small_dataset.catalog.year)
    assert list(loaded.catalog.user_ids) == small_dataset.catalog.user_ids == list(map(str, range(80)))
    assert list(loaded.catalog.item_ids) == small_dataset.catalog.item_ids
    assert loaded.scale == Scale()


def test_scale_and_ids_of_the_raw_files_are_kept(small_dataset, tmp_path):
    scale = Scale("stars", 2.0, 10.0, 2.0)
    ids = ["A", "é1", "AA", " u3", *(f"user {k}" for k in range(76))]
    catalog = dataclasses.replace(small_dataset.catalog, user_ids=ids)
    save(dataclasses.replace(small_dataset, catalog=catalog, scale=scale), tmp_path / "odd")
    loaded = load(tmp_path / "odd")
    assert read_manifest(tmp_path / "odd")["scale"] == {"kind": "stars", "least": 2, "most": 10, "step": 2}
    for dataset in (loaded, pickle.loads(pickle.dumps(loaded))):
        assert dataset.scale == scale
        assert [dataset.find_user(text) for text in ids] == list(range(80))
        assert dataset.find_item("63") == 63
    for dataset in (loaded, dataclasses.replace(loaded, catalog=catalog)):
        with pytest.raises(UserError, match=r"no user has the id usr 7: the nearest are .*user 7"):
            dataset.find_user("usr 7")
        with pytest.raises(UserError, match="no item has the id "):
            dataset.find_item("")


def test_columns_are_mapped_and_read_only(folder):
    assert isinstance(load(folder).interactions.item, np.memmap)
    with pytest.raises(ValueError):
        load(folder).interactions.item[0] = 1


def test_to_another_process_goes_the_folder(small_dataset, folder):
    loaded = load(folder)
    sent = pickle.dumps(loaded)
    assert len(sent) < 1000
    assert isinstance(pickle.loads(sent).interactions.time, np.memmap)
    # What was made of it, or never was on disk, goes whole.
    for dataset in (small_dataset, dataclasses.replace(loaded, name="other")):
        twin = pickle.loads(pickle.dumps(dataset))
        assert twin.name == dataset.name
        np.testing.assert_array_equal(twin.interactions.time, small_dataset.interactions.time)


def test_strange_titles_survive(small_dataset, tmp_path):
    odd = 'a\u2028b\x85c \u00e9 </think> "quoted" \\ \n'
    title = [odd, *small_dataset.catalog.title[1:]]
    catalog = dataclasses.replace(small_dataset.catalog, title=title)
    save(dataclasses.replace(small_dataset, catalog=catalog), tmp_path / "odd")
    assert load(tmp_path / "odd").catalog.title[0] == odd


def test_manifest_tells_source_counts_and_true_hashes(small_dataset, folder):
    manifest = read_manifest(folder)
    assert (manifest["source"], manifest["licence"]) == ("generated", "Apache-2.0")
    assert manifest["counts"]["ratings"] == len(small_dataset.interactions)
    assert manifest["counts"]["split"] == {
        "sft": 20,
        "grpo": 15,
        "validation": 5,
        "evaluation": 20,
    }
    assert manifest["candidates_sha256"] == candidates_hash(small_dataset.split)
    assert set(manifest["files"]) == {p.name for p in folder.iterdir()} - {"manifest.json"}
    for name, facts in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_two_saves_are_equal_byte_for_byte(small_dataset, folder, tmp_path):
    save(small_dataset, tmp_path / "again", source="generated", licence="Apache-2.0")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_an_existing_folder_is_kept(small_dataset, folder):
    before = (folder / "manifest.json").stat().st_mtime_ns
    with pytest.raises(UserError, match="already exists"):
        save(small_dataset, folder)
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    save(small_dataset, folder, overwrite=True)
    assert read_manifest(folder)["source"] == ""


def damage_missing(folder):
    (folder / "item.npy").unlink()


def damage_short(folder):
    content = (folder / "time.npy").read_bytes()
    (folder / "time.npy").write_bytes(content[:-8])


def damage_candidates(folder):
    path = folder / "candidates.npy"
    rows = np.load(path)
    np.save(path, rows[:, ::-1].copy())


def damage_schema(folder):
    edit_manifest(folder, schema=0)


def damage_counts(folder):
    edit_manifest(folder, counts={"users": 80})


def damage_json(folder):
    (folder / "manifest.json").write_text("{")


def damage_outside(folder):
    edit_manifest(folder, files={"../x.npy": {"bytes": 0}})


def damage_threshold(folder):
    edit_manifest(folder, protocol={"like_above": float("nan")})


def damage_scale(folder):
    edit_manifest(folder, scale={"kind": "stars", "least": 5, "most": 1, "step": 1})


def damage_ids(folder):
    path = folder / "item_id_offsets.npy"
    np.save(path, np.load(path) + 1)


def damage_hash(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["candidates_sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def damage_nested(folder):
    (folder / "manifest.json").write_text("[" * 100_000)


def damage_dtype(folder):
    rows = np.load(folder / "candidates.npy")
    np.save(folder / "candidates.npy", rows.view(np.float32))


def damage_header(folder):
    path = folder / "user.npy"
    path.write_bytes(path.read_bytes().replace(b"'shape': (", b"'shape': 9", 1))


def damage_names(folder):
    path = folder / "names.json"
    path.write_bytes(b"x" * path.stat().st_size)


def damage_titles(folder):
    path = folder / "title_offsets.npy"
    np.save(path, np.load(path) + 1)


def damage_all(folder):
    (folder / "manifest.json").unlink()


def edit_manifest(folder, **fields):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    "damage",
    [
        damage_missing,
        damage_short,
        damage_candidates,
        damage_schema,
        damage_counts,
        damage_json,
        damage_outside,
        damage_threshold,
        damage_scale,
        damage_ids,
        damage_hash,
        damage_nested,
        damage_dtype,
        damage_header,
        damage_names,
        damage_titles,
        damage_all,
    ],
)
def test_a_damaged_folder_names_the_command_that_makes_it(folder, damage):
    damage(folder)
    with pytest.raises(UserError, match=r"python -m launch\.prepare") as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_history_ends_before_the_truth_and_likes_are_the_last_ones(small_dataset):
    log, split = small_dataset.interactions, small_dataset.split
    for user in range(log.n_users):
        rows = small_dataset.history(user)
        assert split.truth[user] not in log.item[rows]
        liked = [log.item[r] for r in range(rows.start, rows.stop) if log.rating[r] > 3]
        assert small_dataset.recent_likes(user, 5).tolist() == liked[-5:]
        assert small_dataset.recent_likes(user, 0).tolist() == []


def test_a_user_without_truth_shows_everything(small_dataset):
    log = Interactions.from_log([0, 0], [1, 0], [5, 2], [1, 2], 1, 2)
    truth, cutoff = np.array([-1], np.int32), np.array([2])
    split = dataclasses.replace(small_dataset.split, truth=truth, cutoff=cutoff)
    dataset = Dataset("one", log, small_dataset.catalog, split)
    assert dataset.history(0) == slice(0, 2)
    assert dataset.recent_likes(0, 5).tolist() == [1]
