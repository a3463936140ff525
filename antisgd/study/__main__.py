"""A study of your own network from a shell: measure, compare with theory, report.

    python -m antisgd.study module:problem --eigenpairs=200 --output_dir=runs/mine

`module` is imported from the working directory; `problem` is an `antisgd.study.Problem` there, or a
function that makes one. The flags are the fields of `antisgd.study.Settings`.
"""

from antisgd import study
from antisgd.study import cli


def main(words: str, settings: study.Settings, place: study.Place) -> None:
    """Runs the study of the named problem."""
    study.run(
        cli.load(words),
        settings,
        place.output_dir,
        overwrite=place.overwrite,
        plan=place.plan,
        json=place.json,
    )


if __name__ == "__main__":
    cli.run(main, study.Settings(), study.Place(), positional=1)
