"""README and docs run: every Python block is executed, every command, link and message exists."""

import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from contextlib import nullcontext, redirect_stdout, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from antisgd import results
from antisgd.study import cli
from antisgd.study.preflight import plan
from antisgd.study.stages import eigenpairs
from experiments import cli as experiments_cli
from experiments import kept
from experiments.lenet import __main__ as lenet
from tests import mains, tiny
from tests.test_guards import found_before

ROOT = Path(__file__).parent.parent
# The how-tos run in a test of their own.
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TEXT = "\n".join(page.read_text() for page in PAGES)
README, LAB = ((ROOT / name).read_text() for name in ("README.md", "docs/lab.md"))
BLOCKS = list(dict.fromkeys(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)))
COMMANDS = sorted(
    set(
        re.findall(r"python -m (experiments[\w.]*|antisgd\.study)[\w: ]*((?: --[\w=./,-]+)*)", TEXT)
    )
)


# What a fragment stands in, by a name that it alone holds.
SURROUNDINGS = {
    "# measured: deterministic": """
import flax.linen as nn, jax, jax.numpy as jnp
from antisgd import study
class Network(nn.Module):
    @nn.compact
    def __call__(self, x, training=False):
        x = nn.BatchNorm(use_running_average=not training)(nn.Dense(4)(x))
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=not training)(nn.relu(x)))
network = Network()
train = jax.random.normal(jax.random.key(0), (20, 3)), jnp.arange(20) % 2
def mean(logits, labels, weights):
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]
    return -jnp.sum(weights * picked) / jnp.sum(weights)
""",
    "images.npy": """
import jax.numpy as jnp, numpy as np
from antisgd import sources, study
np.save("images.npy", np.ones((20, 3), np.float32))
np.save("labels.npy", np.ones(20, np.float32))
init, test = lambda key: jnp.zeros(3), None
def loss(params, examples, weights):
    off = examples[0] @ params - examples[1]
    return jnp.sum(weights * off**2) / jnp.sum(weights)
""",
    "loader:  # as you have it": """
import numpy as np, torch
N, S, P, eigenvalues = 40, 4, torch.eye(3, 3).double(), [1.0, 0.5, 0.2]
x = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
loader = torch.utils.data.DataLoader(
    torch.utils.data.TensorDataset(torch.arange(N), x, x.sum(1, keepdim=True)), S, shuffle=True
)
loader = [batch for _ in range(5) for batch in loader]
model, loss = torch.nn.Linear(3, 1, bias=False), torch.nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
""",
    "schedule.indices:  # as you have it": """
import jax, jax.numpy as jnp, numpy as np, optax
from jax.flatten_util import ravel_pytree
from antisgd import heavy_ball, sampling
N, S, P, eigenvalues = 40, 4, np.eye(3), [1.0, 0.5, 0.2]
x = jax.random.normal(jax.random.key(0), (N, 3))
y, params = x.sum(axis=1), jnp.zeros(3)
loss = lambda params, x, y: jnp.mean((x @ params - y) ** 2)
optimizer = heavy_ball.heavy_ball(0.01, 0.9)
state = optimizer.init(params)
epochs = [sampling.without_replacement(jax.random.key(1), e, N, S) for e in range(5)]
schedule = jax.tree.map(lambda *parts: jnp.concatenate(parts), *epochs)
""",
}
# What a block must have computed, by a name that it alone holds.
CHECKS = {
    "# measured: deterministic": """
settings = study.Settings(batch_size=5, epochs=1, stages=("train",), analysis_seeds=0)
study.run(problem, settings, "run")
import numpy as np
kept = np.load("run/training.npz")
assert np.isfinite(kept["step_largest"]).all() and any("batch_stats" in name for name in kept)
""",
    "images.npy": """
problem.check()
assert sources.streamed(problem.train)
""",
    "recording.npz": """
from antisgd import audit
kept = np.load("recording.npz")
assert len(kept["weights"]) == len(kept["gradients"]) + 1 == len(kept["indices"]) + 1
step = 0.9 * np.diff(kept["weights"], axis=0)[:-1] - 0.01 * kept["gradients"][1:]
np.testing.assert_allclose(np.diff(kept["weights"], axis=0)[1:], step, atol=1e-6)
audit.load("recording.npz")
""",
    "leading_eigenpairs": """
ratio = measured.correlation_time / predicted
assert pairs.converged.all() and 0.5 < np.median(ratio) < 2, ratio
""",
}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[0])
def test_python_blocks_run(block, tmp_path):
    """The own-model block's measured correlation times are also within twice the theory's."""
    if "torch." in block:
        pytest.importorskip("torch", reason="the extra 'torch' is not installed")
    before = "".join(code for name, code in SURROUNDINGS.items() if name in block)
    checks = "".join(check for name, check in CHECKS.items() if name in block)
    done = subprocess.run(
        [sys.executable, "-c", before + block + checks],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env=os.environ | {"XLA_FLAGS": tiny.QUICK_TO_COMPILE},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_check_has_its_block():
    assert all(any(name in block for block in BLOCKS) for name in (*CHECKS, *SURROUNDINGS))


@pytest.mark.parametrize("module", sorted({module for module, _ in COMMANDS}))
def test_commands_have_modules_flags_and_presets(module):
    """Each command's flags are read by its module, all those of a module in one process."""
    given = [arguments for name, arguments in COMMANDS if name == module]
    process = tiny.CONTEXT.Process(target=read_flags, args=(module, given))
    process.start()
    process.join()
    assert process.exitcode == 0


def read_flags(module, lines):
    """The command up to where its main would begin; help names the options of a script."""
    os.chdir(ROOT)

    def begun(main, *defaults, positional=0):
        for line in lines:
            cli.parse(line.split(), *defaults)
        print("usage: ", *lines)

    cli.run = experiments_cli.run = begun
    sys.argv = ["x", "--help"]
    with redirect_stdout(io.StringIO()) as text, suppress(SystemExit):
        runpy.run_module(module, run_name="__main__")
    assert text.getvalue().startswith("usage: ")
    assert all(name in text.getvalue() for name in re.findall(r"--\w+", " ".join(lines)))


def test_both_make_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)$", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


TROUBLES = re.findall(r"^\| `([^|]*)` \|", LAB.partition("## Messages")[2], re.MULTILINE)
# A part of each message, and the flags of a command that gets it.
MISTAKES = {
    "other settings": ["--seed=1"],
    "at step": ["--learning_rate=1e5"],
    "holds none of them": ["--dataset=cifar10", "--num_examples=600"],
    "--batch_size": ["--batch_size=61"],
    "--eigenpairs=": ["--eigenpairs=651"],
    "of memory": [],
    "of disk": [],
    "is being worked in": [],
    "trained networks": ["--seeds=2", "--stages=eigenpairs"],
}


def matches(message, text):
    return re.fullmatch(".*".join(map(re.escape, message.split("…"))) + ".*", text)


@pytest.mark.parametrize("part", MISTAKES)
def test_a_mistake_gets_the_message_of_the_docs(part, tmp_path, monkeypatch):
    (message,) = [one for one in TROUBLES if part in one]
    folder, empty = tmp_path / "run", tmp_path / "empty"
    empty.mkdir()
    if part == "other settings":
        mains.run(lenet, folder, *tiny.FLAGS, "--stages=train", "--epochs=0")
    if part == "trained networks":
        mains.run(lenet, folder, *tiny.FLAGS, "--stages=train", "--analysis_seeds=0")
    if part == "of memory":
        monkeypatch.setattr(plan, "machine", lambda: plan.Room("this machine", 1000))
    if part == "of disk":
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    elsewhere = results.held(folder) if part == "is being worked in" else nullcontext()
    with elsewhere, pytest.raises(SystemExit) as stopped:
        mains.run(lenet, folder, *tiny.FLAGS, *MISTAKES[part], f"--data_dir={empty}")
    assert matches(message, str(stopped.value).removeprefix("error: ")), stopped.value


def test_unconverged_pairs_get_the_warning_of_the_docs(tmp_path, caplog):
    (message,) = [one for one in TROUBLES if not any(part in one for part in MISTAKES)]
    found_before(tmp_path)
    (record,) = caplog.records
    assert record.name == eigenpairs.__name__ and matches(message, record.getMessage())


def test_the_tables_are_what_the_kept_results_say():
    assert kept.tables() in kept.RESULTS.read_text()
    assert kept.tables().count("| Fig. 2 |") >= 4
    assert kept.ten_numbers() in README and len(kept.ten_numbers().splitlines()) == 12
    assert kept.PAGE.read_text() == kept.page()


def test_the_page_of_kept_results_has_every_run_row_and_figure():
    page = kept.PAGE.read_text()
    for summary in kept.FOLDER.glob("*/summary.json"):
        section = page.partition(f"## {summary.parent.name}\n")[2].partition("\n## ")[0]
        quantities = [row["quantity"].replace("|", "∣") for row in json.loads(summary.read_text())]
        assert re.findall(r"^\| (?!item).*? \| (.*?) \| ", section, re.MULTILINE) == quantities
        figures = {path.name for path in summary.parent.glob("*.png")}
        assert set(re.findall(r"\]\(\w+/(\w+\.png)\)", section)) == figures


def test_kept_results_name_no_place_of_this_machine():
    for config in kept.FOLDER.glob("*/config.json"):
        assert "_dir=" not in config.read_text()
        assert "/home" not in config.read_text()
