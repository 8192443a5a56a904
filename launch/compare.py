"""Compares two profiles, each a profile.json or the folder that holds one.

    python -m launch.compare runs/before runs/after

Prints what got slower and faster, by phase and by scope, and how the compiled programs differ.
"""

from pathlib import Path

from r2rec_jax.cli import command
from r2rec_jax.performance.profile_diff import compare
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.untrusted import parse_json


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        raise UserError(
            "name two profiles: python -m launch.compare A B, workdirs or files of launch.profile"
        )
    print(compare(*(_read(Path(argument)) for argument in arguments)))


def _read(path: Path) -> dict:
    if path.is_dir():
        path = path / "profile.json"
    try:
        profile = parse_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; make it with launch.profile") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): make it again with launch.profile") from error
    if not (isinstance(profile, dict) and {"scopes", "programs", "phases"} <= profile.keys()):
        raise UserError(f"{path} is no profile of launch.profile")
    return profile


if __name__ == "__main__":
    command.run_plain(main)
