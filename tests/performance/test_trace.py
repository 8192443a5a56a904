"""Traces written by hand, one as a GPU's and one as a CPU's; intervals against a count of points."""

import itertools
import os

import numpy as np
import pytest
from jax.profiler import ProfileData

from r2rec_jax.performance import trace
from r2rec_jax.performance.trace import Event


def plane(name: str, lines: dict[str, list[tuple]]) -> str:
    """Text of a plane; an event is (name, start us, duration us, {stat: value})."""
    names, stats, text = {}, {}, []
    for line, events in lines.items():
        inside = []
        for event, start, duration, about in events:
            key = names.setdefault(event, len(names) + 1)
            values = "".join(
                f'stats {{ metadata_id: {stats.setdefault(stat, len(stats) + 1)} str_value: "{value}" }} '
                for stat, value in about.items()
            )
            at = f"offset_ps: {start * 1_000_000} duration_ps: {duration * 1_000_000}"
            inside.append(f"events {{ metadata_id: {key} {at} {values}}}")
        text.append(f'lines {{ name: "{line}" timestamp_ns: 5000 {" ".join(inside)} }}')
    text += [f'event_metadata {{ key: {k} value {{ id: {k} name: "{n}" }} }}' for n, k in names.items()]
    text += [f'stat_metadata {{ key: {k} value {{ id: {k} name: "{n}" }} }}' for n, k in stats.items()]
    return f'planes {{ name: "{name}" {" ".join(text)} }}'


def write(path, *planes: str) -> None:
    path.write_bytes(ProfileData.text_proto_to_serialized_xspace("\n".join(planes)))


def of(op: str) -> dict:
    return {"hlo_op": op, "hlo_module": "jit_step", "program_id": "7"}


def test_a_gpus_streams(tmp_path):
    write(
        tmp_path / "a.xplane.pb",
        plane(
            "/device:GPU:0",
            {
                "Stream #13(Compute)": [("gemm_kernel", 0, 30, of("dot.1")), ("memset", 40, 5, {})],
                "Stream #14(MemcpyD2D)": [("copy", 20, 20, of("copy.2"))],
                "XLA Ops": [("dot.1", 0, 30, of("dot.1"))],
            },
        ),
        plane("/host:CPU", {"python": [("rollout", 1, 50, {}), ("other", 2, 3, {})]}),
    )
    found = trace.read(tmp_path / "a.xplane.pb", ["rollout", "update"])
    program = ("jit_step", "7")
    assert sorted(found.events, key=lambda event: event.start) == [
        Event("/device:GPU:0", program, "dot.1", "gemm_kernel", pytest.approx(5e-6), pytest.approx(35e-6)),
        Event("/device:GPU:0", program, "copy.2", "copy", pytest.approx(25e-6), pytest.approx(45e-6)),
        Event("/device:GPU:0", ("", ""), "", "memset", pytest.approx(45e-6), pytest.approx(50e-6)),
    ]
    assert found.annotations == {"rollout": [pytest.approx((6e-6, 56e-6))], "update": []}
    assert found.devices == ["/device:GPU:0"]


def test_a_cpus_threads(tmp_path):
    ordinal = {"device_ordinal": "1"}
    write(
        tmp_path / "a.xplane.pb",
        plane(
            "/host:CPU",
            {
                "python": [("step", 0, 100, {"step_num": "3"})],
                "tf_XLAPjRtCpuClient/1": [("dot.1", 10, 5, of("dot.1")), ("end: dot.1", 15, 1, {})],
                "tf_XLAPjRtCpuClient/2": [("dot.1", 10, 5, of("dot.1") | ordinal)],
            },
        ),
        plane("/host:metadata", {}),
    )
    found = trace.read(tmp_path / "a.xplane.pb", ["step"])
    assert [(event.device, event.op) for event in found.events] == [("cpu 0", "dot.1"), ("cpu 1", "dot.1")]
    assert len(found.annotations["step"]) == 1


def test_the_newest_trace_is_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \*\.xplane\.pb below"):
        trace.find(tmp_path)
    for age, name in [(100, "b"), (10, "a")]:
        path = tmp_path / "plugins" / name / "host.xplane.pb"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    assert trace.find(tmp_path).parent.name == "a"


def test_intervals_are_sets_of_points():
    rng = np.random.default_rng(0)
    points = np.arange(0, 120) + 0.5

    def covered(intervals):
        return np.array([any(start < point < end for start, end in intervals) for point in points])

    for _ in range(20):
        busy, other = (
            [(int(start), int(start + length)) for start, length in zip(*draw, strict=True)]
            for draw in rng.integers(0, 40, (2, 2, 6)) * np.array([[[2], [1]]])
        )
        together, window = trace.union(busy), (10, 100)
        assert (covered(together) == covered(busy)).all()
        assert all(before[1] < after[0] for before, after in itertools.pairwise(together))
        free = trace.gaps(busy, window)
        assert (covered(free) == (~covered(busy) & covered([window]))).all()
        common = (covered(busy) & covered(other)).sum()
        assert trace.overlap(together, trace.union(other)) == common
