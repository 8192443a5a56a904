from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_two_lists_differ_in_cuda_alone():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    cpu = (ROOT / "requirements-cpu.txt").read_text().splitlines()
    assert [line.replace("jax[cuda12]==", "jax==") for line in lines] == cpu
    assert lines != cpu
