import numpy as np
import pytest

from r2rec_jax.pipeline.batches import SimilarLengths, batches, collate, pad
from r2rec_jax.runtime.errors import UserError


class Squares:
    """A source whose every access can be told apart."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, k: int) -> int:
        return int(k) ** 2


def drawn(iterator, count: int) -> list[list[int]]:
    return [list(map(int, next(iterator))) for _ in range(count)]


def test_rows_are_padded_to_the_smallest_bucket_that_holds_them():
    rows = [np.array([1, 2, 3]), np.array([4])]
    np.testing.assert_array_equal(pad(rows, (8, 4)), [[1, 2, 3, 0], [4, 0, 0, 0]])
    np.testing.assert_array_equal(pad(rows, (3,)), [[1, 2, 3], [4, 0, 0]])
    assert pad(rows, (2, 5, 4)).shape == (2, 4)
    assert pad(rows, (4,)).dtype == np.int32 and pad(rows, (4,), np.float32).dtype == np.float32


def test_a_row_longer_than_every_bucket_is_refused():
    with pytest.raises(UserError, match=r"5 tokens fits no bucket of \(2, 4\)"):
        pad([np.arange(5)], (2, 4))


def test_examples_collate_to_aligned_arrays():
    examples = [
        {"prompt": [7, 8], "response": [1, 2, 3], "mask": [0, 1, 1]},
        {"prompt": [9], "response": [4], "mask": [1]},
    ]
    examples = [{name: np.array(row) for name, row in example.items()} for example in examples]
    batch = collate(examples, (2, 16), (4, 16))
    np.testing.assert_array_equal(batch.prompt, [[7, 8], [9, 0]])
    np.testing.assert_array_equal(batch.prompt_length, [2, 1])
    np.testing.assert_array_equal(batch.response, [[1, 2, 3, 0], [4, 0, 0, 0]])
    np.testing.assert_array_equal(batch.response_mask, [[0, 1, 1, 0], [1, 0, 0, 0]])
    assert batch.response_mask.dtype == np.float32


def test_without_shuffling_the_source_is_read_in_order_for_ever():
    iterator = batches(Squares(5), batch_size=2, seed=0, shuffle=False, to_batch=list)
    assert drawn(iterator, 5) == [[0, 1], [4, 9], [16, 0], [1, 4], [9, 16]]


def test_each_epoch_is_another_order_of_everything():
    iterator = batches(Squares(12), batch_size=4, seed=1, shuffle=True, to_batch=list)
    flat = [value for batch in drawn(iterator, 9) for value in batch]
    epochs = [flat[:12], flat[12:24], flat[24:]]
    assert [sorted(epoch) for epoch in epochs] == [[k * k for k in range(12)]] * 3
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_the_order_depends_on_the_seed_alone():
    first, again, other = (
        drawn(batches(Squares(30), batch_size=5, seed=s, shuffle=True, to_batch=list), 8) for s in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("stop", [0, 1, 4, 7])
def test_an_iterator_resumes_where_its_state_was_taken(stop):
    def fresh():
        return batches(Squares(13), batch_size=4, seed=3, shuffle=True, to_batch=list)

    whole = drawn(fresh(), 10)
    stopped = fresh()
    assert drawn(stopped, stop) == whole[:stop]
    state = stopped.get_state()
    drawn(stopped, 2)  # what is read after the state was taken does not count
    resumed = fresh()
    resumed.set_state(state)
    assert drawn(resumed, 10 - stop) == whole[stop:]


LENGTHS = np.random.default_rng(4).integers(1, 1000, 1003)


def similar(seed=5) -> SimilarLengths:
    return SimilarLengths(np.arange(1003), LENGTHS, batch_size=8, seed=seed)


def test_batches_of_similar_length_are_an_epoch_but_for_the_rest():
    groups = similar()
    for epoch in range(2):
        rows = [row for k in range(125) for row in groups[125 * epoch + k]]
        assert len(set(rows)) == len(rows) == 1000
    assert groups[0] != groups[125]  # another order
    left_out = [set(range(1003)).difference(*(groups[125 * e + k] for k in range(125))) for e in range(2)]
    assert left_out[0] != left_out[1]


def test_little_of_a_batch_of_similar_lengths_is_padding():
    def padding(batches) -> float:
        padded = sum(len(batch) * max(LENGTHS[batch]) for batch in batches)
        return 1 - sum(LENGTHS[batch].sum() for batch in batches) / padded

    groups = similar()
    shuffled = np.random.default_rng(6).permutation(1000).reshape(-1, 8)
    assert padding([np.array(groups[k]) for k in range(125)]) < 0.05 < 0.4 < padding(list(shuffled))


def test_groups_depend_on_the_seed_and_place_alone():
    whole, again = similar(), similar()
    wanted = [whole[k] for k in range(300)]
    assert [again[k] for k in reversed(range(300))] == wanted[::-1]
    assert [similar(seed=6)[k] for k in range(3)] != wanted[:3]


def test_an_iterator_over_groups_resumes_exactly():
    def fresh():
        source = [np.arange(length) for length in LENGTHS]
        return batches(source, batch_size=8, seed=1, shuffle=True, to_batch=list, lengths=LENGTHS)

    def drawn_lengths(iterator, count):
        return [[len(row) for row in next(iterator)] for _ in range(count)]

    whole, stopped = drawn_lengths(fresh(), 140), fresh()
    assert drawn_lengths(stopped, 130) == whole[:130]
    state = stopped.get_state()
    next(stopped)
    resumed = fresh()
    resumed.set_state(state)
    assert drawn_lengths(resumed, 10) == whole[130:]


def test_less_than_a_batch_is_refused():
    with pytest.raises(UserError, match="3 examples do not fill a batch of 8"):
        SimilarLengths(np.arange(3), np.ones(3, int), 8, 0)
