"""Rows of measurements by hand-made numbers, the paired timer, and a peer's process."""

import sys
import time

import pytest

from r2rec_jax.bench import result
from r2rec_jax.runtime.errors import UserError


def test_a_row_by_hand():
    row = result.row("step", ours=[2.0, 1.0, 4.0], peer=[3.0, 3.3, 2.7], unit="s", target=1.5)
    assert (row.ours, row.peer, row.ratio, row.met) == (2.0, 3.0, 1.5, True)
    assert row.spread == (1.0, pytest.approx(0.1))
    assert not result.row("step", [2.0], [2.9], "s", target=1.5).met


def test_without_a_peer_or_a_target_nothing_is_met():
    row = result.row("step", [2.0], None, "s", target=1.5)
    assert (row.peer, row.ratio, row.met, row.spread) == (None, None, None, (0.0, None))
    assert result.row("step", [2.0], [9.0], "s").met is None


def test_of_rates_more_is_better():
    row = result.row("pipeline", [300.0, 310.0, 290.0], [100.0], "examples/s", target=2)
    assert (row.ours, row.peer, row.ratio, row.met) == (300.0, 100.0, pytest.approx(3), True)
    assert not result.row("pipeline", [90.0], [100.0], "examples/s", target=1).met


def test_both_are_timed_in_turns():
    calls = []

    def call(name, seconds):
        calls.append(name)
        time.sleep(seconds)

    ours, peer = result.paired_seconds(
        lambda: call("ours", 0.001), lambda: call("peer", 0.02), repeats=3, warmup=2
    )
    assert calls == ["ours", "peer"] * 5
    assert len(ours) == len(peer) == 3
    assert max(ours) > 0.001 and min(peer) > 0.02


def test_of_consecutive_calls_the_second_counts():
    calls = []

    def call(name):
        calls.append(name)
        time.sleep(0.03 if calls[-2:] != [name, name] else 0.001)  # slow after the other has worked

    ours, peer = result.paired_seconds(
        lambda: call("ours"), lambda: call("peer"), repeats=2, warmup=0, consecutive=True
    )
    assert calls == ["ours", "ours", "peer", "peer"] * 2
    assert max(ours + peer) < 0.02


@pytest.fixture
def peers(tmp_path, monkeypatch):
    monkeypatch.setattr(result, "PEERS", tmp_path)
    return tmp_path


def test_a_peer_answers_on_its_last_line(peers):
    (peers / "peer.py").write_text('import sys\nprint("loading")\nprint(\'{"x": %s}\' % sys.argv[1])\n')
    assert result.run_peer(sys.executable, "peer.py", 3) == {"x": 3}


def test_a_peer_that_fails_is_named(peers):
    (peers / "peer.py").write_text("raise SystemExit('no torch here')\n")
    with pytest.raises(UserError, match=r"peers/peer\.py by .* ended with code 1: no torch here"):
        result.run_peer(sys.executable, "peer.py")
    with pytest.raises(UserError, match=r"--peers=.*nowhere"):
        result.run_peer(peers / "nowhere", "peer.py")


SERVER = """
import sys
print('{"loss": 2}', flush=True)
for line in sys.stdin:
    print('{"turn": "%s"}' % sys.argv[2], flush=True)
    if sys.argv[2] == "tired":
        sys.exit("no more")
"""


def test_a_serving_peer_takes_turns(peers):
    (peers / "peer.py").write_text(SERVER)
    with result.serving(sys.executable, "peer.py", "folder", "a") as peer:
        assert peer.hello == {"loss": 2}
        assert peer.ask() == peer.ask() == {"turn": "a"}
        process = peer._process
    assert process.poll() is not None


def test_a_serving_peer_that_dies_is_named(peers):
    (peers / "peer.py").write_text(SERVER)
    with (
        result.serving(sys.executable, "peer.py", "folder", "tired") as peer,
        pytest.raises(UserError, match=r"peers/peer\.py by .* ended with code 1: no more"),
    ):
        peer.ask()
        peer.ask()
    with (
        pytest.raises(UserError, match=r"--peers=.*nowhere"),
        result.serving(peers / "nowhere", "peer.py"),
    ):
        pass


def test_the_fastest_variant_that_runs(peers):
    (peers / "peer.py").write_text(
        "import sys, time\nprint('{}', flush=True)\n"
        "for line in sys.stdin:\n    time.sleep(float(sys.argv[2]))\n    print('{}', flush=True)\n"
    )
    variants = ["0.2", "0.01", "not a number"]
    assert result.fastest(sys.executable, "peer.py", "folder", variants) == "0.01"
    with pytest.raises(UserError, match=r"no variant of peers/peer\.py runs"):
        result.fastest(sys.executable, "peer.py", "folder", variants[2:])


def test_sides_that_compute_different_things_are_not_compared():
    result.require_equal("loss", 1.0005, 1.0)
    with pytest.raises(ValueError, match=r"loss: ours computes 1\.002, the peer 1\.0"):
        result.require_equal("loss", 1.002, 1.0)
    with pytest.raises(ValueError, match="nan"):
        result.require_equal("loss", float("nan"), 1.0)
