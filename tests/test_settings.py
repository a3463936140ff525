"""Settings are values: checked, replaced, written as JSON, read from flags; nothing is global."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest

from antisgd.study import Settings, cli
from antisgd.study.fields import check_bounds
from antisgd.study.settings import Place
from antisgd.study.stages import table
from experiments.lenet import __main__ as lenet
from experiments.pictures import Pictures
from tests import tiny

OTHER = Settings(
    seed=3, seeds=2, batch_size=7, learning_rate=0.125, learning_rate_decay=0.5, momentum=0.75,
    epochs=4, sampling=("with_replacement",), curve_examples=11, eigenpairs=13, basis_memory=1.5,
    analysis_epochs=5, analysis_seeds=2, full_gradient="quadratic", stages=("train",),
    microbatch_size=17, block_size=2, precision="high", analysis_periods=2, track_every=2,
    track_eigenpairs=3,
)  # fmt: skip
# What the numbers do not depend on.
FREE = {"basis_memory", "stages", "microbatch_size", "block_size", "precision"}


def test_the_example_sets_everything_but_to_its_default():
    fields = dataclasses.fields(Settings)
    assert all(getattr(OTHER, one.name) != one.default for one in fields)


@pytest.mark.parametrize("settings", [Settings(), OTHER, tiny.settings()])
def test_what_decides_the_numbers_comes_back_from_json(settings):
    read = Settings.from_json(json.loads(json.dumps(settings.to_json())))
    assert settings.to_json().keys() == {f.name for f in dataclasses.fields(Settings)} - FREE
    free = {name: getattr(settings, name) for name in FREE}
    assert dataclasses.replace(read, **free) == settings
    assert all(getattr(read, name) == getattr(Settings(), name) for name in FREE)


def test_a_name_that_is_no_setting_is_refused():
    with pytest.raises(ValueError, match="no setting batchsize, sede: there are analysis_epochs, "):
        Settings.from_json({"sede": 1, "batchsize": 2, "epochs": 3})


def test_settings_do_not_change_and_replacing_one_leaves_the_other():
    one = tiny.settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.epochs = 5
    other = dataclasses.replace(one, learning_rate=0.5, learning_rate_decay=0.5, epochs=3)
    assert (one.epochs, one.final_learning_rate) == (6, pytest.approx(0.01 * 0.98**6))
    assert other.final_learning_rate == 0.5**4


def test_several_seeds_train_with_every_scheme_and_one_with_the_first():
    assert (Settings().trained_schemes, Settings().networks) == (("without_replacement",), 1)
    many = dataclasses.replace(Settings(), seeds=20)
    assert (many.trained_schemes, many.networks) == (Settings().sampling, 40)


BAD = {
    "batch_size": (0, "below 1"),
    "seeds": (0, "below 1"),
    "epochs": (-1, "below 0"),
    "analysis_epochs": (0, "below 1"),
    "analysis_periods": (0, "below 1"),
    "analysis_seeds": (-1, "below 0"),
    "eigenpairs": (0, "below 1"),
    "microbatch_size": (0, "below 1"),
    "block_size": (0, "below 1"),
    "curve_examples": (0, "below 1"),
    "basis_memory": (-1.0, "below 0"),
    "full_gradient": ("some", "choose from exact, quadratic"),
    "sampling": (("alternating",), "choose from without_replacement, with_replacement"),
    "momentum": (1.0, r"outside \[0, 1\)"),
    "learning_rate": (0.0, "not positive"),
    "learning_rate_decay": (0.0, r"outside \(0, 1\]"),
    "stages": (("train", "trian"), "unknown trian"),
    "track_every": (101, "more than --epochs=100"),
    "track_eigenpairs": (3, "needs --track_every=EPOCHS"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_impossible_is_named(name):
    value, message = BAD[name]
    with pytest.raises(ValueError, match=f"^--{name}.*{message}"):
        dataclasses.replace(Settings(), **{name: value}).check()


@pytest.mark.parametrize("name", ["learning_rate", "learning_rate_decay", "momentum"])
def test_nan_is_impossible(name):
    with pytest.raises(ValueError, match=f"--{name}=nan"):
        dataclasses.replace(Settings(), **{name: float("nan")}).check()


def test_every_smallest_value_is_allowed_and_every_choice():
    for field in dataclasses.fields(Settings):
        for value in (field.metadata.get("least"), *(field.metadata.get("choices") or ())):
            if value is not None:
                value = (value,) if field.name == "sampling" else value
                check_bounds(dataclasses.replace(Settings(), **{field.name: value}))


def test_the_stages_are_those_of_the_table_and_the_help_names_them():
    (field,) = (one for one in dataclasses.fields(Settings) if one.name == "stages")
    assert field.default == table.names()
    assert ",".join(table.names()) in field.metadata["words"]
    # The products that the help promises.
    products = {stage.name: stage.products for stage in table.STAGES}
    assert f"{products['validity']} Hessian products" in field.metadata["words"]
    assert f"{products['density']} products" in field.metadata["words"]
    assert f"some {products['predict']} products" in field.metadata["words"]


# --- flags ----------------------------------------------------------------------------------

# Flags of `python -m experiments.lenet` with their defaults: these names and the paper's values
# stand in papers, in notes and in run folders.
LENETS = {
    "analysis_epochs": 20,
    "analysis_periods": 1,
    "analysis_seeds": 1,
    "basis_memory": None,
    "batch_size": 50,
    "block_size": None,
    "curve_examples": None,
    "data_dir": None,
    "dataset": "cifar10",
    "eigenpairs": 5000,
    "epochs": 100,
    "full_gradient": "exact",
    "json": False,
    "learning_rate": 0.005,
    "learning_rate_decay": 0.98,
    "microbatch_size": None,
    "momentum": 0.9,
    "num_examples": None,
    "output_dir": "runs/lenet",
    "overwrite": False,
    "plan": False,
    "precision": "highest",
    "sampling": ("without_replacement", "with_replacement"),
    "seed": 0,
    "seeds": 1,
    "smooth": False,
    "stages": ("train", "eigenpairs", "analysis", "covariance", "discard", "validity", "density",
               "predict", "track", "figures"),
    "track_eigenpairs": None,
    "track_every": None,
    "weight_decay": 1e-4,
}  # fmt: skip
# Of every main, beside its own.
PROCESSES = {"distributed": False, "coordinator": None, "processes": None, "process": None}
# The range that the help states.
RANGES = {
    "a positive integer": {"analysis_epochs", "analysis_periods", "batch_size", "block_size",
                           "curve_examples", "eigenpairs", "microbatch_size", "processes",
                           "seeds", "track_eigenpairs", "track_every"},
    "a non-negative integer": {"analysis_seeds", "epochs", "process"},
    "an integer": {"num_examples", "seed"},
    "a non-negative number": {"basis_memory"},
    "a number": {"learning_rate", "learning_rate_decay", "momentum", "weight_decay"},
    "a comma separated list": {"stages"},
    "repeat this option to specify a list of values": {"sampling"},
}  # fmt: skip


def values(options):
    return {
        field.name: getattr(one, field.name) for one in options for field in dataclasses.fields(one)
    }


def parsed(*arguments):
    return values(cli.parse(arguments, *lenet.OPTIONS))


def test_no_flag_given_is_the_papers_experiment():
    assert parsed() == LENETS
    assert parsed() == values(
        (Settings(), Pictures(), Place(output_dir="runs/lenet"), lenet.Network())
    )


@pytest.mark.parametrize(
    ("argument", "name", "value"),
    [
        ("--seeds=20", "seeds", 20),
        ("--learning_rate=1e-3", "learning_rate", 1e-3),
        ("--basis_memory=2", "basis_memory", 2.0),
        ("--num_examples=500", "num_examples", 500),
        ("--sampling=with_replacement", "sampling", ("with_replacement",)),
        ("--stages=train,figures", "stages", ("train", "figures")),
        ("--data_dir=/pictures", "data_dir", "/pictures"),
        ("--plan", "plan", True),
        ("--nooverwrite", "overwrite", False),
        ("--full_gradient=quadratic", "full_gradient", "quadratic"),
    ],
)
def test_a_flag_changes_its_setting_alone(argument, name, value):
    assert parsed(argument) == LENETS | {name: value}


@pytest.fixture(scope="module")
def helped():
    """What the help of the main experiment says of each flag, in one line."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.lenet", "--help"],
        capture_output=True, text=True, cwd=tiny.ROOT, check=False,
    )  # fmt: skip
    own = done.stdout.partition("\nTry --helpfull")[0]
    entries = re.findall(r"^  --(?:\[no\])?(\w+): (.*(?:\n    .*)*)", own, re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in entries}


def test_help_has_every_flag_with_its_default(helped):
    assert helped.keys() == (LENETS | PROCESSES).keys()
    for name, value in (LENETS | PROCESSES).items():
        text = str(list(value)) if name == "sampling" else value
        text = ",".join(value) if name == "stages" else str(text)
        text = text.lower() if isinstance(value, bool) else text
        default = re.search(r"\(default: (['\"])(.*?)\1\)", helped[name])
        # A list longer than a line is broken in the middle of a word.
        shown = default and (default[2].replace(" ", "") if name == "stages" else default[2])
        assert shown == (None if value is None else text)


def test_help_says_what_a_flag_may_be(helped):
    for words, names in RANGES.items():
        assert {name for name, text in helped.items() if words in text} == names
    assert helped["dataset"].startswith("<cifar10|digits|synthetic>: ")
    assert helped["full_gradient"].startswith("<exact|quadratic>: ")
    assert helped["sampling"].startswith("<without_replacement|with_replacement>: ")
    assert sum("Paper: " in text for text in helped.values()) == 14


def test_a_flag_may_be_given_twice_for_a_list():
    given = parsed("--sampling=with_replacement", "--sampling=without_replacement")
    assert given["sampling"] == ("with_replacement", "without_replacement")


def test_a_preset_and_what_comes_after_it():
    preset = tiny.ROOT / "experiments" / "presets" / "demo.flags"
    given = parsed(f"--flagfile={preset}", "--eigenpairs=7")
    assert (given["dataset"], given["eigenpairs"]) == ("synthetic", 7)


def test_two_command_lines_live_in_one_process():
    first, second = parsed("--seed=1"), parsed("--seed=2", "--plan")
    assert (first["seed"], second["seed"], parsed()["seed"]) == (1, 2, 0)
    assert not first["plan"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--batch_size=0", "batch_size"),
        ("--epochs=-1", "epochs"),
        ("--basis_memory=-1", "basis_memory"),
        ("--seed=x", "seed"),
        ("--sampling=alternating", "sampling"),
        ("--dataset=mnist", "dataset"),
        ("--eigenpair=5", "eigenpair"),
        ("words", "unexpected argument words"),
    ],
)
def test_a_flag_that_is_none_or_has_no_such_value_is_refused(argument, message):
    with pytest.raises(ValueError, match=message):
        parsed(argument)
