"""A loss of PyTorch under JAX's transformations, against PyTorch's own autograd and optimiser."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from antisgd import heavy_ball, hessian, lanczos, pytorch, sampling, trajectory

EPS = np.finfo(np.float32).eps
N = 24


def test_without_pytorch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'antisgd\[torch\]'"):
        pytorch.traceable(lambda params, examples, weights: 0)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="needs torch: pip install 'antisgd[torch]'")


@pytest.fixture(scope="module")
def network(torch):
    """Module, loss, examples: batch normalisation frozen, labels int32 as JAX has them."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh(), torch.nn.Linear(4, 3)
    ).eval()

    def loss(params, examples, weights):
        logits = torch.func.functional_call(module, params, (examples["x"],))
        losses = torch.nn.functional.cross_entropy(logits, examples["y"], reduction="none")
        penalty = 0.01 * sum((leaf**2).sum() for leaf in params.values())
        return (weights * losses).sum() / weights.sum() + penalty

    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 5)).astype(np.float32)
    return module, loss, {"x": x, "y": rng.integers(0, 3, N).astype(np.int32)}


def own(torch, network, weights):
    """Value, gradient [d] and Hessian [d, d] by torch.autograd in float64, names in JAX's order."""
    module, loss, examples = network
    params = pytorch.parameters(module)
    flat = torch.tensor(np.concatenate([np.ravel(params[name]) for name in sorted(params)]))
    examples = {"x": torch.tensor(examples["x"]).double(), "y": torch.tensor(examples["y"]).long()}
    module.double()

    def of(flat):
        parts = flat.split([params[name].size for name in sorted(params)])
        tree = {n: p.view(params[n].shape) for n, p in zip(sorted(params), parts, strict=True)}
        return loss(tree, examples, torch.tensor(weights).double())

    flat = flat.double().requires_grad_()
    value = of(flat)
    (gradient,) = torch.autograd.grad(value, flat)
    found = value.item(), gradient.numpy(), torch.autograd.functional.hessian(of, flat).numpy()
    module.float()
    return found


@pytest.mark.parametrize(("dtype", "error"), [("float32", 50 * EPS), ("float64", 1e-13)])
def test_value_gradient_and_products_are_pytorchs(torch, network, dtype, error):
    module, loss, examples = network
    weights = np.linspace(0, 1, N)
    value, gradient, matrix = own(torch, network, weights)
    with jax.enable_x64(dtype == "float64"):
        params = pytorch.parameters(module.to(getattr(torch, dtype)))
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        inside = {"x": examples["x"].astype(dtype), "y": examples["y"]}
        flat, insert = ravel_pytree(params)
        at = jax.jit(
            lambda flat: pytorch.traceable(loss)(insert(flat), inside, jnp.asarray(weights, dtype))
        )
        block = jnp.eye(flat.size, dtype=dtype)
        products = jax.vmap(lambda v: jax.jvp(jax.grad(at), (flat,), (v,))[1])(block)
        found = at(flat), jax.grad(at)(flat), products
        assert {one.dtype for one in found} == {jnp.dtype(dtype)}
        found = [np.asarray(one, np.float64) for one in found]
    module.float()
    scale = np.linalg.norm(matrix, 2)
    assert abs(found[0] - value) < error * value
    assert np.abs(found[1] - gradient).max() < error * np.linalg.norm(gradient)
    assert np.abs(found[2] - matrix).max() < error * scale


def test_it_goes_where_a_loss_goes(torch, network):
    """Microbatches with a ragged end, certified pairs, gradients of single examples."""
    module, loss, examples = network
    traced, params = pytorch.traceable(loss), pytorch.parameters(module)
    _, gradient, matrix = own(torch, network, np.ones(N))
    matvec = hessian.hessian_vector_product(traced, params, examples, microbatch_size=7)
    pairs = lanczos.leading_eigenpairs(
        matvec, len(matrix), 5, key=jax.random.key(0), probe_products=8
    )
    exact = np.linalg.eigvalsh(matrix)[::-1]
    assert np.abs(pairs.values - exact[:5]).max() < 50 * EPS * exact[0]
    each = trajectory.example_gradients(traced, params, examples, pairs.vectors, microbatch_size=10)
    expected = np.asarray(pairs.vectors, np.float64) @ gradient
    assert np.abs(each.mean(0) - expected).max() < 50 * EPS * np.abs(each).max()


def test_a_schedule_trains_as_pytorchs_optimiser_does(torch, network):
    """v ← βv − ηg with the study's batches: the same weights after two epochs, to rounding."""
    module, loss, examples = network
    params, optimizer = pytorch.parameters(module), heavy_ball.heavy_ball(0.05, 0.9)
    state = heavy_ball.init(optimizer, params)
    theirs = {
        name: torch.tensor(np.array(leaf), requires_grad=True) for name, leaf in params.items()
    }
    sgd = torch.optim.SGD(theirs.values(), lr=0.05, momentum=0.9)
    for epoch in range(2):
        schedule = sampling.without_replacement(jax.random.key(1), epoch, N, 6)
        state, _ = heavy_ball.run_schedule(
            pytorch.traceable(loss), optimizer, state, schedule, examples
        )
        for rows in np.asarray(schedule.indices):
            sgd.zero_grad()
            x, y = torch.tensor(examples["x"][rows]), torch.tensor(examples["y"][rows]).long()
            loss(theirs, {"x": x, "y": y}, torch.ones(len(rows))).backward()
            sgd.step()
    moved = max(np.abs(state.params[name] - params[name]).max() for name in params)
    for name, leaf in theirs.items():
        assert np.abs(state.params[name] - leaf.detach().numpy()).max() < 100 * EPS < 1e-3 * moved


def test_large_arrays_pass_a_scan(torch):
    """150,000 weights and microbatches of 2 MB: no call to the host waits for itself."""
    weights = np.random.default_rng(0).normal(size=(500, 300)).astype(np.float32)

    def loss(params, examples, shares):
        return (shares * (torch.sin(examples @ params).mean(1))).sum() / shares.sum()

    x = np.ones((2000, 500), np.float32) / 500
    product = hessian.hessian_vector_product(
        pytorch.traceable(loss), weights, x, microbatch_size=1000
    )
    v = jnp.ones(weights.size)
    angle = weights.astype(np.float64).sum(0) / 500
    expected = np.tile(-np.sin(angle) / 500 / 300, (500, 1)).ravel()
    np.testing.assert_allclose(product(v), expected, atol=50 * EPS * np.abs(expected).max())


def test_what_it_cannot_do_is_said_in_one_line(torch, network):
    module, loss, examples = network
    traced, params = pytorch.traceable(loss), pytorch.parameters(module)
    with pytest.raises(TypeError, match="with respect to params alone"):
        jax.grad(traced, 2)(params, examples, jnp.ones(N))
    with pytest.raises(ValueError, match="params hold a leaf of int32"):
        traced(params | {"count": jnp.zeros((), jnp.int32)}, examples, jnp.ones(N))


def test_a_tensor_is_a_product(torch):
    """Through DLPack; one that carries a graph is refused in one line, as its own error says."""
    matrix = torch.diag(torch.arange(40.0))
    pairs = lanczos.leading_eigenpairs(
        product=lambda block: torch.from_dlpack(block) @ matrix, dimension=40, k=3,
        key=jax.random.key(0),
    )  # fmt: skip
    np.testing.assert_allclose(pairs.values, [39, 38, 37], rtol=20 * EPS)
    matrix.requires_grad_()
    with pytest.raises(ValueError, match="read through DLPack.*return it detached") as found:
        lanczos.leading_eigenpairs(
            product=lambda block: torch.from_dlpack(block) @ matrix, dimension=40, k=3,
            key=jax.random.key(0),
        )  # fmt: skip
    assert "\n" not in str(found.value)
    with pytest.raises(ValueError, match="DLPack.*in float32 or float64"):
        lanczos.leading_eigenpairs(
            product=lambda block: torch.from_dlpack(block).bfloat16(), dimension=40, k=3,
            key=jax.random.key(0),
        )  # fmt: skip


def test_frozen_parameters_stay_with_the_module(torch, network):
    module = network[0]
    module[3].bias.requires_grad_(False)
    assert "3.bias" not in pytorch.parameters(module)
    module[3].bias.requires_grad_(True)
    assert set(pytorch.parameters(module)) == dict(module.named_parameters()).keys()
