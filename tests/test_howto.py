"""Every how-to runs as written, in at most 25 lines, and agrees with a dense float64 Hessian.

Needs nothing of this repository but the pages: `pytest test_howto.py` beside docs/howto and an
installed antisgd is the same test.
"""

import ast
import importlib.util
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import LinearOperator, eigsh

HERE = Path(__file__).parent
FOLDER = next(p / "docs" / "howto" for p in (HERE, HERE.parent) if (p / "docs" / "howto").is_dir())
PAGES = sorted(FOLDER.glob("*.md"))
NEEDED = {"equinox": "equinox", "haiku": "haiku", "torch": "torch"}
EPS = np.finfo(np.float32).eps


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def by_name(page):
    return page.stem


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_a_page_is_short_and_needs_the_package_alone(page):
    code = "\n".join(blocks(page))
    assert 0 < sum(bool(line.strip()) for line in code.splitlines()) <= 25
    for node in ast.walk(ast.parse(code)):
        names = [alias.name for alias in getattr(node, "names", [])] + [getattr(node, "module", "")]
        assert not {"experiments", "tests"} & {str(name).split(".")[0] for name in names}
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


def ran(name):
    """What the page's blocks leave behind; numpy-like broadcasting of ranks, as users have it."""
    package = NEEDED.get(name.partition("_")[0])
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}: pip install 'antisgd[torch,frameworks]'")
    found = {"__name__": "__main__"}
    with jax.numpy_rank_promotion("allow"):
        for block in blocks(FOLDER / f"{name}.md"):
            exec(compile(block, f"{name}.md", "exec"), found)
    return found


def wide(tree):
    """Floats in float64."""
    floating = lambda leaf: hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda x: np.asarray(x, np.float64) if floating(x) else x, tree)


def dense(loss, params, examples, weights=None):
    """∇²L in float64 over all examples at once, with respect to every leaf of params."""
    count = len(jax.tree.leaves(examples)[0])
    weights = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        flat, unravel = ravel_pytree(wide(params))
        examples = wide(examples)
        return np.asarray(jax.hessian(lambda at: loss(unravel(at), examples, weights))(flat))


def check(pairs, matrix):
    """Ritz values are off by residual² / gap and by the rounding of float32 products."""
    k = len(pairs.values)
    exact = np.linalg.eigvalsh(matrix)[::-1]
    assert pairs.converged.all() and pairs.certificate.missed == 0
    scale = np.abs(exact).max()
    assert np.abs(pairs.values - exact[:k]).max() < 50 * EPS * scale
    vectors = np.asarray(pairs.vectors, np.float64)
    true = np.linalg.norm(vectors @ matrix - pairs.values[:, None] * vectors, axis=1)
    assert (true <= 1.1e-3 * np.abs(pairs.values) + 50 * EPS * scale).all()


@pytest.mark.parametrize("name", ["nnx", "equinox", "haiku"])
def test_a_frameworks_pairs_are_those_of_the_dense_hessian(name):
    found = ran(name)
    check(found["pairs"], dense(found["loss"], found["params"], found["examples"]))


def test_nnx_in_one_piece_has_the_same_pairs():
    """Statistics, keys and counters are no directions: the same vectors, and so the same bits."""
    found = ran("nnx")
    graph, state = found["nnx"].split(found["network"])

    def loss(state, examples, weights):
        logits = found["nnx"].merge(graph, state)(examples[0])
        losses = found["objective"].cross_entropy(logits, examples[1])
        return jnp.sum(weights * losses) / jnp.sum(weights)

    with jax.numpy_rank_promotion("allow"):
        products = [
            found["hessian"].hessian_vector_product(
                one, params, found["examples"], microbatch_size=100
            )(jnp.ones(found["dimension"]))
            for one, params in ((loss, state), (found["loss"], found["params"]))
        ]
    np.testing.assert_array_equal(*products)


def test_linen_leaves_the_statistics_alone():
    """Pairs of the statistics as they were; the renewed ones are the mean and variance there."""
    found = ran("linen")
    network, inputs = found["Network"](), found["inputs"]
    before = network.init(jax.random.key(1), inputs)
    statistics = before["batch_stats"]

    def loss(params, examples, weights):
        return found["loss"]({"params": params, "batch_stats": statistics}, examples, weights)

    check(found["pairs"], dense(loss, before["params"], found["examples"]))
    hidden = np.asarray(inputs) @ np.asarray(before["params"]["Dense_0"]["kernel"])
    renewed = found["variables"]["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(renewed["mean"], hidden.mean(0), atol=100 * EPS)
    np.testing.assert_allclose(renewed["var"], hidden.var(0), rtol=1000 * EPS)
    same = [found["variables"]["params"], before["params"]]
    assert all(map(np.array_equal, *map(jax.tree.leaves, same)))


@pytest.mark.parametrize("name", ["linen"])
def test_a_training_mode_is_refused(name):
    found = ran(name)
    network, hessian = found["Network"](), found["hessian"]

    def training(variables, examples, weights):
        x, y = examples
        logits, _ = network.apply(
            variables, x, training=True, mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )  # fmt: skip
        losses = found["objective"].cross_entropy(logits, y)
        return jnp.sum(weights * losses) / jnp.sum(weights)

    with (
        jax.numpy_rank_promotion("allow"),
        pytest.raises(ValueError, match="freeze batch statistics and dropout"),
    ):
        hessian.hessian_vector_product(
            training, found["variables"], found["examples"], microbatch_size=100
        )


def test_dictionaries_count_tokens():
    """The dense Hessian is of the mean over all tokens, written without the how-to's loss."""
    found = ran("dict_inputs")
    used = np.asarray(found["batch"]["labels"]) != -100

    def over_tokens(params, batch, weights):
        logits = found["network"](params, batch["input_ids"], batch["attention_mask"])
        chosen = jax.nn.log_softmax(logits)[np.nonzero(used)]
        labels = np.asarray(batch["labels"])[used]
        return -jnp.mean(chosen[np.arange(len(labels)), labels])

    matrix = dense(over_tokens, found["params"], found["batch"])
    check(found["pairs"], matrix)
    apart = dense(found["loss"], found["params"], found["batch"])
    assert np.abs(apart - matrix).max() > 1e-3 * np.abs(matrix).max(), "all as long"


@pytest.mark.slow
def test_a_transformer():
    found = ran("transformer")
    check(found["pairs"], dense(found["loss"], found["params"], found["tokens"]))


def test_scipy_in_and_out():
    found = ran("scipy")
    matrix = dense(found["loss"], found["params"], found["examples"])
    exact = np.linalg.eigvalsh(matrix)
    assert np.abs(found["values"] - exact[-5:]).max() < 50 * EPS * exact[-1]
    check(found["pairs"], found["matrix"].toarray())


def test_fifty_pairs_of_a_torch_module():
    """Against a dense float64 Hessian and ARPACK on it, by PyTorch's own: 1e-5 of λ₁, no gap."""
    found = ran("torch_eigenpairs")
    torch, pairs = found["torch"], found["pairs"]
    module = found["module"].double()
    inputs = found["inputs"].double()
    labels = torch.cat([y for _, y in found["batches"]])
    leaves = dict(module.named_parameters())

    def loss(*parts):
        params = dict(zip(leaves, parts, strict=True))
        logits = torch.func.functional_call(module, params, (inputs,))
        return torch.nn.functional.cross_entropy(logits, labels)

    rows = torch.autograd.functional.hessian(loss, tuple(leaves.values()))
    sizes = [leaf.numel() for leaf in leaves.values()]
    matrix = torch.cat(
        [torch.cat([part.reshape(n, -1) for part in row], 1)
         for n, row in zip(sizes, rows, strict=True)]
    ).numpy()  # fmt: skip
    check(pairs, matrix)
    exact = np.linalg.eigvalsh(matrix)[::-1]
    operator = LinearOperator(matrix.shape, matvec=lambda v: matrix @ v, dtype=np.float64)
    arpack = np.sort(eigsh(operator, 50, which="LA", tol=1e-12)[0])[::-1]
    assert len(pairs.values) == 50
    for other in (exact[:50], arpack):
        assert np.abs(pairs.values - other).max() < 1e-5 * exact[0]


@pytest.mark.slow
def test_a_report_of_a_torch_module(tmp_path, monkeypatch):
    """The folder of a study; its eigenvalues are those of PyTorch's own dense float64 Hessian."""
    monkeypatch.chdir(tmp_path)
    found = ran("torch_report")
    for name in ("report.html", "summary.json", "eigenvectors.npy", "config.json"):
        assert os.path.getsize(f"runs/module/{name}")
    torch = found["torch"]
    names = sorted(found["start"])
    found["module"].double()

    def loss(*parts):
        x, y = found["inputs"].double(), found["labels"]
        return found["loss"](dict(zip(names, parts, strict=True)), (x, y), torch.ones(200).double())

    parts = tuple(torch.tensor(np.asarray(found["start"][n], np.float64)) for n in names)
    rows = torch.autograd.functional.hessian(loss, parts)
    matrix = np.block(
        [[np.asarray(part).reshape(len(a.reshape(-1)), -1) for part in row]
         for a, row in zip(parts, rows, strict=True)]
    )  # fmt: skip
    exact, values = (
        np.linalg.eigvalsh(matrix)[::-1],
        np.load("runs/module/eigenpairs.npz")["values"],
    )
    assert np.abs(values - exact[:20]).max() < 1e-5 * exact[0]
    vectors = np.load("runs/module/eigenvectors.npy")
    errors = np.linalg.norm(vectors @ matrix - values[:, None] * vectors, axis=1)
    assert (errors < 2e-3 * values).all()
