"""What is accepted and what is refused, kind by kind: the table behind docs/inputs.md.

A row is an input, what becomes of it in words, and a call. With a message the call is refused by
one line that matches it; without, the call checks for itself that the answer is right.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.tree_util import Partial

from antisgd import (
    ensemble,
    heavy_ball,
    hessian,
    injection,
    lanczos,
    objective,
    sampling,
    statistics,
    theory,
    trajectory,
    weights,
)

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
THETA = jnp.asarray([0.5, -1.0, 2.0])
WITHOUT = theory.without_replacement(10)
SGD = heavy_ball.heavy_ball(0.1, 0.9)
HEAVY_BALL = theory.heavy_ball_system(0.1, 0.9)


class Row(NamedTuple):
    """One input: the kind it is of, what is given to what, and what becomes of it."""

    kind: str
    given: str
    outcome: str
    call: object
    message: str | None = None


def mean_square(params, examples, weights):
    return jnp.sum(weights * (examples @ params) ** 2) / jnp.sum(weights)


def summed(params, examples, weights):
    return jnp.sum(weights * (examples @ params) ** 2)


def deaf(params, examples, weights):
    return jnp.mean((examples @ params) ** 2)


def masking(params, examples, weights):
    """A mask of its own: the first column says which examples count."""
    weights = weights * (examples[:, 0] > 0)
    return jnp.sum(weights * (examples @ params) ** 2) / jnp.sum(weights)


def normalising(params, examples, weights):
    """Batch normalisation in training mode."""
    z = examples @ params
    z = (z - jnp.mean(z)) / jnp.sqrt(jnp.var(z) + 1e-3)
    return jnp.sum(weights * (z - examples[:, 0]) ** 2) / jnp.sum(weights)


def product(loss=mean_square, params=THETA, examples=X, microbatch_size=5, **options):
    return hessian.hessian_vector_product(
        loss, params, examples, microbatch_size=microbatch_size, **options
    )


def gauss_newton(output_loss, examples=X):
    return hessian.gauss_newton_product(
        lambda p, e: e @ p, output_loss, THETA, examples, microbatch_size=5
    )


def gradient(loss=mean_square, params=THETA, examples=X, microbatch_size=5, **options):
    return objective.full_gradient(loss, params, examples, microbatch_size, **options)


def schedule(num_examples=12, batch_size=5):
    return sampling.without_replacement(KEY, 0, num_examples, batch_size)


def run(loss=mean_square, optimizer=SGD, params=THETA, rows=None, examples=X, **options):
    state = heavy_ball.init(optimizer, params)
    rows = schedule() if rows is None else rows
    return heavy_ball.run_schedule(loss, optimizer, state, rows, examples, **options)


def epoch(loss=mean_square, **options):
    run_epoch = ensemble.make_epoch(
        loss, lambda epoch: SGD, [sampling.without_replacement], 5, **options
    )
    keys = ensemble.network_keys(0, 2)
    states = ensemble.init(lambda key: jax.random.normal(key, (3,)), SGD, keys[0])
    return run_epoch, states, keys[1]


def solve(matvec=lambda v: v, dimension=5, k=2, **options):
    return lanczos.leading_eigenpairs(matvec, dimension, k, **{"key": KEY} | options)


def close(found, expected, rtol=1e-5):
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=rtol, atol=1e-6)


def dense(shares=None):
    """The Hessian of `mean_square` in float64."""
    x, shares = X.astype(np.float64), np.ones(12) if shares is None else shares
    return 2 * (x.T * shares) @ x / np.sum(shares)


def matrix(matvec, dimension=3):
    return np.stack([matvec(row) for row in jnp.eye(dimension)])


# -- sums over data in low precision


def ones_in(dtype):
    params = jnp.ones(1, dtype)
    return params, np.ones((1000, 1), np.float32)


def low_precision_product(dtype):
    params, examples = ones_in(dtype)
    for size in (250, 1000):
        matvec = product(params=params, examples=examples, microbatch_size=size)
        close(matvec(jnp.ones(1)), 2.0)


def low_precision_gradient(dtype):
    params, examples = ones_in(dtype)
    found = gradient(params=params, examples=examples, microbatch_size=1000)
    assert found.dtype == jnp.float32
    close(found, 2.0)


def low_precision_gauss_newton():
    params, examples = ones_in(jnp.bfloat16)
    matvec = hessian.gauss_newton_product(
        lambda p, e: e @ p, lambda z, e, w: jnp.sum(w * z**2) / jnp.sum(w), params, examples,
        microbatch_size=1000,
    )  # fmt: skip
    close(matvec(jnp.ones(1)), 2.0)


def low_precision_training():
    last, losses = run(optimizer=heavy_ball.heavy_ball(np.float64(0.1), np.float32(0.9)),
                       params=THETA.astype(jnp.bfloat16))  # fmt: skip
    assert last.params.dtype == jnp.bfloat16
    assert jax.tree.leaves(last.opt_state)[0].dtype == jnp.bfloat16
    exact, expected = run()
    close(losses, expected, rtol=0.1)


# -- what is no weight

MIXED = {
    "count": jnp.asarray(16777217, jnp.int32), "key": KEY, "kind": "relu", "flag": True,
    "nothing": None, "w": THETA, "act": jax.nn.relu,
}  # fmt: skip


def counted(params, examples, weights):
    """Branches on the exact integer, and on the text."""
    right = (params["count"] == 16777217) & (params["kind"] == "relu") & params["flag"]
    return jnp.where(right, 1, 7) * mean_square(params["w"], examples, weights)


def mixed_product():
    matvec = product(counted, MIXED)
    close(matrix(matvec), dense())
    flat, insert = hessian.ravel_subset(MIXED)
    assert flat.shape == (3,)
    assert insert(flat)["count"] == 16777217
    assert insert(flat)["kind"] == "relu"


def mixed_gradient():
    found = gradient(counted, MIXED)
    assert found["count"] is None
    close(found["w"], dense() @ np.asarray(THETA, np.float64))


def mixed_training():
    last, _ = run(counted, params=MIXED)
    close(last.params["w"], run()[0].params)
    assert last.params["count"] == 16777217
    assert last.params["kind"] == "relu"


def mixed_example_gradients():
    found = trajectory.example_gradients(counted, MIXED, X, jnp.eye(3), microbatch_size=5)
    close(found, 2 * (X @ np.asarray(THETA))[:, None] * X)


def collections():
    params = {"params": {"w": THETA}, "batch_stats": {"mean": jnp.ones(4)}}

    def loss(params, examples, weights):
        return mean_square(params["params"]["w"], examples, weights)

    close(matrix(product(loss, params)), dense())


# -- losses that do not average


def weighed():
    shares = np.arange(12) % 3
    for size in (1, 5, 12):
        close(matrix(product(microbatch_size=size, weights=shares)), dense(shares))
        found = gradient(microbatch_size=size, weights=shares)
        close(found, dense(shares) @ np.asarray(THETA, np.float64))


def masked_training():
    """A mask in every batch gives what training on the others alone gives."""
    mask = np.tile([1.0, 0.0], 6)
    rows = sampling.Schedule(np.arange(12).reshape(3, 4), np.ones((3, 4), np.float32))
    halves = sampling.Schedule(np.arange(6).reshape(3, 2), np.ones((3, 2), np.float32))
    close(run(rows=rows, example_weights=mask)[0].params,
          run(rows=halves, examples=X[::2])[0].params)  # fmt: skip


def weighed_metrics():
    class Pictures(NamedTuple):
        images: np.ndarray
        labels: np.ndarray

    pictures = Pictures(X, np.arange(12) % 3)
    mask = np.arange(12) < 7
    first = jax.tree.map(lambda leaf: leaf[:7], pictures)
    whole = objective.evaluate(lambda p, x: x * p[None], THETA, pictures, weights=mask)
    close(whole, objective.evaluate(lambda p, x: x * p[None], THETA, first))


def traced_nan():
    rows = sampling.Schedule(jnp.asarray([[0, 1], [2, 12]]), jnp.ones((2, 2)))
    _, losses = jax.jit(lambda rows: run(rows=rows))(rows)
    assert np.isnan(losses).tolist() == [False, True]


def traced_label():
    logits = jnp.ones((3, 4))
    found = jax.jit(objective.cross_entropy)(logits, jnp.asarray([0, -1, 4]))
    assert np.isnan(found).tolist() == [False, True, True]


def named_kernels():
    params = {"layers": [{"weight": THETA, "bias": THETA}]}
    named = objective.kernel_penalty(params, lambda name: name.endswith("weight"))
    close(named, np.sum(np.square(THETA)))
    assert objective.make_loss(lambda p, x: x, 0.0) is not None


def nnx_state():
    """Kernel and bias vary, the penalty finds the kernel; statistics and keys are left alone."""
    network = nnx.Sequential(
        nnx.Linear(3, 1, rngs=nnx.Rngs(0)), nnx.BatchNorm(1, rngs=nnx.Rngs(0)), nnx.Dropout(0.5)
    )
    network.eval()
    graph, state = nnx.split(network)

    def loss(state, examples, weights):
        z = nnx.merge(graph, state)(examples)[:, 0]
        return jnp.sum(weights * z**2) / jnp.sum(weights) + objective.kernel_penalty(state)

    assert weights.ravel(state)[0].size == 3 + 1 + 2
    assert np.isfinite(matrix(product(loss, state), 6)).all()
    close(objective.kernel_penalty(state), np.sum(np.square(network.layers[0].kernel[...])))


# -- the solver

A = np.diag(np.geomspace(1, 1e-3, 40)).astype(np.float32)


def scaled_solve(scale):
    pairs = solve(Partial(scaled, A, np.float32(scale)), 40, 6)
    rows = np.asarray(pairs.vectors, np.float64)
    true = np.linalg.norm(rows @ A - pairs.values[:, None] / scale * rows, axis=1)
    close(pairs.values / scale, np.diag(A)[:6], rtol=1e-4)
    # A certificate tells the true residual, to the rounding of a product.
    np.testing.assert_allclose(pairs.residuals / scale, true, atol=3e-7)


def scaled(matrix, scale, v):
    return scale * (matrix @ v)


def used_up_state():
    first = solve(Partial(scaled, A, np.float32(1)), 40, 2)
    solve(Partial(scaled, A, np.float32(1)), 40, 4, state=first.state)
    return solve(Partial(scaled, A, np.float32(1)), 40, 4, state=first.state)


def used_up_networks():
    run_epoch, states, keys = epoch()
    run_epoch(states, keys, 0, X)
    return run_epoch(states, keys, 1, X)


def shared_leaves():
    run_epoch, states, keys = epoch()
    trace = jax.tree.map(lambda leaf: states.params, states.opt_state)
    run_epoch(states._replace(opt_state=trace), keys, 0, X)


# -- optimisers


def polyak():
    """It needs the value of the loss: two steps by hand."""
    optimizer = optax.polyak_sgd(max_learning_rate=0.1)
    rows = jax.tree.map(lambda part: part[:2], schedule())
    found, _ = run(optimizer=optimizer, rows=rows)
    params, state = THETA, optimizer.init(THETA)
    for indices, shares in zip(*rows, strict=True):
        value, slope = jax.value_and_grad(mean_square)(params, X[indices], shares)
        update, state = optimizer.update(slope, state, params, value=value)
        params = optax.apply_updates(params, update)
    close(found.params, params)


def schedule_of_rates():
    last, _ = run(optimizer=heavy_ball.heavy_ball(lambda step: 0.1 / (1 + step), 0.9))
    assert np.isfinite(last.params).all()


def injected():
    found = theory.from_optax(optax.inject_hyperparams(optax.sgd)(0.1, momentum=0.9))
    expected = theory.from_optax(optax.sgd(0.1, momentum=0.9))
    for one, other in zip(found, expected, strict=True):
        close(one, other)


class Asking:
    """An optimiser whose update wants what nobody gives."""

    @staticmethod
    def made():
        def update(updates, state, params=None, *, curvature, **extra):
            return updates, state

        return optax.GradientTransformationExtraArgs(lambda params: (), update)


# -- theory


def nearly_equal():
    lam = 0.5 * (1 + 1e-9 * np.arange(300))
    for values in (np.full(300, 0.5), lam):
        found = theory.window_variances(values, 0.1, 0.9, WITHOUT, 20)
        one = theory.window_variances(np.array([0.5]), 0.1, 0.9, WITHOUT, 20)
        close(found.weight, np.full(300, one.weight), rtol=1e-7)


def beyond_the_edge():
    found = jax.jit(lambda lam: theory.correlation_time(lam, 0.1, 0.9, WITHOUT))
    assert np.isinf(found(jnp.asarray([38.1, -1.0]))).all()


def reshuffled(epochs, N=300, S=10):
    rng = np.random.default_rng(epochs)
    return np.concatenate([rng.permutation(N).reshape(-1, S) for _ in range(epochs)])


def flat_directions():
    """λ = 1e-3, where the law at zero frequency decides."""
    for epochs, tolerance in ((20, 0.2), (100, 0.05)):
        law = theory.from_indices(reshuffled(epochs), 300, 30)
        assert law.closed_form == "without_replacement(30)"
        found, exact = (
            theory.stationary_variances(1e-3, 0.05, 0.9, one).weight
            for one in (law, theory.without_replacement(30))
        )
        assert abs(found / exact - 1) < tolerance
        assert 0 < law.white_error < 0.01


def ragged_streams():
    rng = np.random.default_rng(0)
    batches = [b for _ in range(60) for b in np.split(rng.permutation(47), [10, 20, 30, 40])]
    law = theory.from_indices(batches, 47, 6)
    exact = theory.partial_last(47, 10)
    assert law.closed_form == "partial_last(47, 10)"
    assert abs(law.white - exact.white) < 5 * law.white_error
    rows = [sampling.without_replacement(jax.random.key(1), e, 47, 10) for e in range(60)]
    padded = [np.concatenate([getattr(row, part) for row in rows]) for part in row_parts()]
    again = theory.from_indices(padded[0], 47, 6, padded[1])
    assert again.closed_form == law.closed_form


def row_parts():
    return "indices", "weights"


def named_streams():
    rng = np.random.default_rng(2)
    order = rng.permutation(60).reshape(6, 10)
    pairs = [(order, order[::-1]) for order in (rng.permutation(60).reshape(6, 10)
                                                for _ in range(60))]  # fmt: skip
    streams = {
        "with_replacement()": rng.integers(60, size=(400, 10)),
        "shuffle_once(6)": np.tile(order, (30, 1)),
        "flip_flop(6)": np.concatenate([half for pair in pairs for half in pair]),
        "spanning_batches(67, 10)": np.concatenate([rng.permutation(67) for _ in range(80)])[
            : 530 * 10
        ].reshape(-1, 10),
    }
    for name, stream in streams.items():
        N = 67 if "67" in name else 60
        assert theory.from_indices(stream, N, 13).closed_form == name


def inconsistent_law():
    return theory.Noise(1.0, 0, correlations=np.array([-0.4]))


def negative_law():
    return theory.Noise(2.6, 0, correlations=np.array([0.8]))


# -- statistics

NAN = np.where(np.arange(20).reshape(10, 2) == 7, np.nan, 1.0)
PATH = np.random.default_rng(3).normal(size=(11, 2))


ROWS = [
    Row("Low precision", "bfloat16 params, products over 1,000 examples",
        "computed in float32", lambda: low_precision_product(jnp.bfloat16)),
    Row("Low precision", "float16 params, products over 1,000 examples",
        "computed in float32", lambda: low_precision_product(jnp.float16)),
    Row("Low precision", "bfloat16 params, full gradient",
        "a float32 gradient", lambda: low_precision_gradient(jnp.bfloat16)),
    Row("Low precision", "bfloat16 params, Gauss–Newton products",
        "computed in float32", low_precision_gauss_newton),
    Row("Low precision", "bfloat16 params and NumPy's float64 as learning rate, training",
        "trained in bfloat16", low_precision_training),
    Row("Low precision", "bfloat16 as the solver's dtype", "refused",
        lambda: solve(dtype=jnp.bfloat16), "float32 or float64, not bfloat16"),
    Row("Low precision", "float64 as the solver's dtype without x64", "refused",
        lambda: solve(dtype=np.float64), r"jax\.enable_x64"),
    Row("No weights", "integers, keys, texts, functions, None beside weights: products",
        "left as they are, no directions", mixed_product),
    Row("No weights", "the same: full gradient", "None in their place", mixed_gradient),
    Row("No weights", "the same: training", "left as they are", mixed_training),
    Row("No weights", "the same: gradients of single examples", "no directions",
        mixed_example_gradients),
    Row("No weights", "flax's collection 'batch_stats' beside 'params'", "no directions",
        collections),
    Row("No weights", "a complex leaf", "refused",
        lambda: product(params={"z": jnp.ones(3, jnp.complex64)}), "leaf 'z' is complex"),
    Row("No weights", "no floating-point leaf at all", "refused",
        lambda: product(params={"n": jnp.ones(3, int)}), "hold no weights"),
    Row("Losses", "a loss that sums: products", "refused", lambda: product(summed),
        "without dividing by their sum"),
    Row("Losses", "a loss that sums: full gradient", "refused", lambda: gradient(summed),
        "without dividing by their sum"),
    Row("Losses", "a loss that sums: training", "refused", lambda: run(summed),
        "no weighted mean"),
    Row("Losses", "an output loss that sums: Gauss–Newton", "refused",
        lambda: gauss_newton(lambda z, e, w: jnp.sum(w * z**2)), "no weighted mean"),
    Row("Losses", "a loss that ignores its weights, also at zero weights", "refused",
        lambda: product(deaf, jnp.zeros(3)), "without regard to its weights"),
    Row("Losses", "a loss that ignores its weights: many networks", "refused",
        lambda: (lambda go, states, keys: go(states, keys, 0, X))(*epoch(deaf)),
        "without regard to its weights"),
    Row("Losses", "a mask of one's own inside the loss", "refused; give it as `weights=`",
        lambda: product(masking), "weights="),
    Row("Losses", "batch normalisation in training mode", "refused",
        lambda: gradient(normalising), "batch statistics"),
    Row("Losses", "a loss of every example", "refused",
        lambda: product(lambda p, e, w: w * (e @ p)), "one real number"),
    Row("Losses", "weights or a mask of the examples: products, gradients",
        "a weighted mean, for any microbatch", weighed),
    Row("Losses", "a mask of the examples: training", "as training on the others alone",
        masked_training),
    Row("Losses", "a mask of the examples: metrics", "means over the others", weighed_metrics),
    Row("Losses", "weights that are negative", "refused",
        lambda: product(weights=-np.ones(12)), "not be negative"),
    Row("Losses", "weights of another length", "refused",
        lambda: gradient(weights=np.ones(11)), "each of the 12"),
    Row("Examples", "an index beyond the examples", "refused",
        lambda: run(rows=sampling.Schedule(np.array([[12]]), np.ones((1, 1)))),
        "asks for example 12, there are 12"),
    Row("Examples", "the same under jit", "NaN as that step's loss", traced_nan),
    Row("Examples", "inputs and labels of different lengths: training", "refused",
        lambda: run(examples=(X, X[:5])), r"\[5, 12\]"),
    Row("Examples", "inputs and labels of different lengths: products", "refused",
        lambda: product(examples=(X, X[:5])), r"\[5, 12\]"),
    Row("Examples", "NumPy arrays: training", "accepted", run),
    Row("Examples", "a generator", "refused", lambda: product(examples=(x for x in X)),
        "not a generator"),
    Row("Examples", "a single number as a leaf", "refused",
        lambda: gradient(examples={"x": X, "n": 3}), "single number 3"),
    Row("Examples", "no examples", "refused", lambda: run(examples=X[:0]), "0 examples"),
    Row("Examples", "no arrays", "refused", lambda: gradient(examples=()), "not nothing"),
    Row("Examples", "a label outside the classes", "refused",
        lambda: objective.cross_entropy(jnp.ones((1, 3)), jnp.array([-1])), "from -1 to -1"),
    Row("Examples", "the same under jit", "NaN", traced_label),
    Row("Examples", "labels that are no integers", "refused",
        lambda: objective.cross_entropy(jnp.ones((1, 3)), jnp.array([1.0])), "integer labels"),
    Row("Kernels", "a penalty that finds no kernel", "refused",
        lambda: objective.kernel_penalty({"layer": {"weight": THETA}}),
        "among layer/weight: say which"),
    Row("Kernels", "names of the leaves that are meant", "accepted", named_kernels),
    Row("Kernels", "a state of flax.nnx", "its kernels are found, its statistics are no weights",
        nnx_state),
    Row("Kernels", "a weight decay that is NaN", "refused",
        lambda: objective.make_loss(None, np.nan), "weight decay.*nan"),
    *[
        Row("Scale", f"an operator of the size {scale:g}", "the same pairs and residuals, scaled",
            lambda scale=scale: scaled_solve(scale))
        for scale in (1e-30, 1e-18, 1e18, 1e30)
    ],
    Row("Counts", "`microbatch_size=0`", "refused", lambda: gradient(microbatch_size=0),
        "microbatch_size=0"),
    Row("Counts", "`k` as a float", "refused", lambda: solve(k=2.0), r"k=2\.0.*int\(2\)"),
    Row("Counts", "a truth value", "refused", lambda: solve(k=True), "k=True"),
    Row("Counts", "`num_probes=0`", "refused",
        lambda: lanczos.spectral_density(lambda v: v, 5, key=KEY, num_probes=0), "num_probes=0"),
    Row("Counts", "`memory='8GiB'`", "refused", lambda: solve(memory="8GiB"), r"8 \* 2\*\*30"),
    Row("Counts", "half an example", "refused",
        lambda: sampling.with_replacement(KEY, 0, 9.5, 3), "num_examples=9.5"),
    Row("Counts", "NumPy's integers: the solver", "accepted",
        lambda: solve(dimension=np.int64(5), k=np.int32(2), block_size=np.int16(1))),
    Row("Counts", "NumPy's integers: schedules and microbatches", "accepted",
        lambda: (schedule(np.int64(12), np.uint8(5)), gradient(microbatch_size=np.int32(5)))),
    Row("Keys", "an integer: the solver", "refused", lambda: solve(key=0), r"jax\.random\.key"),
    Row("Keys", "an integer: sampling", "refused",
        lambda: sampling.flip_flop(3, 0, 9, 3), r"key=3.*jax\.random\.key"),
    Row("Keys", "an integer: injected noise", "refused",
        lambda: injection.white_noise(0, 0.1), r"jax\.random\.key"),
    Row("Keys", "a key of the old kind", "accepted", lambda: solve(key=jax.random.PRNGKey(0))),
    Row("Solver", "`start` of the shape [d]", "refused", lambda: solve(start=np.ones(5)),
        r"pass start\[None\]"),
    Row("Solver", "a product of pytrees", "refused",
        lambda: solve(lambda v: {"w": v}), "to a dict: flatten"),
    Row("Solver", "a product that takes pytrees", "refused",
        lambda: solve(lambda v: v["w"]), "ravel_pytree"),
    Row("Solver", "a matrix for a function", "refused", lambda: solve(A), "a function"),
    Row("Solver", "a vector of another length for a product", "refused",
        lambda: product()(jnp.ones(4)), r"vectors \[3\]"),
    Row("Solver", "a state given again", "refused", used_up_state, "used up"),
    Row("Solver", "networks given again", "refused", used_up_networks, "used up"),
    Row("Solver", "leaves that share a buffer", "accepted", shared_leaves),
    Row("Optimisers", "one that needs the loss", "accepted", polyak),
    Row("Optimisers", "one that needs more", "refused",
        lambda: run(optimizer=Asking.made()), "curvature"),
    Row("Optimisers", "a schedule as learning rate", "accepted", schedule_of_rates),
    Row("Optimisers", "`from_optax` of `inject_hyperparams`", "as without it", injected),
    Row("Optimisers", "`from_optax` of a schedule", "refused",
        lambda: theory.from_optax(optax.sgd(optax.linear_schedule(0.1, 0.01, 20))),
        "changes from step to step"),
    Row("Optimisers", "`from_optax` of what is not linear", "refused by name",
        lambda: theory.from_optax(optax.adam(0.1)), "ScaleByAdamState"),
    Row("Optimisers", "`from_optax` of noise", "refused by name",
        lambda: theory.from_optax(optax.chain(optax.add_noise(0.1, 0.5, KEY), optax.sgd(0.1))),
        "AddNoiseState.*noise of its own"),
    Row("Optimisers", "`from_optax` of one that needs the loss", "refused",
        lambda: theory.from_optax(optax.polyak_sgd()), "needs more than"),
    Row("Noise laws", "`noise=100`", "refused",
        lambda: theory.stationary_variances(1.0, 0.1, 0.9, 100), "noise=100 is no noise law"),
    Row("Noise laws", "a white share that contradicts the correlations: variances", "refused",
        lambda: theory.stationary_variances(1.0, 0.1, 0.9, inconsistent_law()), "must be 1"),
    Row("Noise laws", "the same: covariances", "refused",
        lambda: theory.stationary_covariance(
            np.ones(1), HEAVY_BALL, inconsistent_law()), "must be 1"),
    Row("Noise laws", "a spectrum that is negative somewhere", "refused",
        lambda: theory.window_variances(np.ones(1), 0.1, 0.9, negative_law(), 9, aligned=False),
        "spectrum falls to"),
    Row("Noise laws", "a reshuffled stream of indices, flat directions",
        "the closed form's variance within its error", flat_directions),
    Row("Noise laws", "a stream with ragged batches", "accepted", ragged_streams),
    Row("Noise laws", "streams of other schemes", "named", named_streams),
    Row("Noise laws", "a stream whose correlations reach beyond max_lag", "refused",
        lambda: theory.from_indices(reshuffled(20), 300, 10), "raise max_lag"),
    Row("Theory", "curvatures beyond the edge: `steep_variances`", "refused",
        lambda: theory.steep_variances(39.0, 0.1, 0.9), "leave the others out"),
    Row("Theory", "the same under jit: `correlation_time`", "+inf", beyond_the_edge),
    Row("Theory", "one NaN among the curvatures: `window_spread`", "refused",
        lambda: theory.window_spread(np.array([1.0, np.nan]), 0.1, 0.9, WITHOUT, 9),
        "not finite at 1 places"),
    Row("Theory", "one NaN among the curvatures: `stationary_variances`", "refused",
        lambda: theory.stationary_variances(np.array([np.nan]), 0.1, 0.9, WITHOUT),
        "not finite"),
    Row("Theory", "300 curvatures that are (nearly) equal", "accepted", nearly_equal),
    Row("Theory", "β = 1: `crossover_eigenvalue`", "refused",
        lambda: theory.crossover_eigenvalue(0.1, 1.0, 10), r"\[0, 1\)"),
    Row("Theory", "shapes that do not broadcast", "refused",
        lambda: theory.stationary_variances(np.ones(3), np.ones(2), 0.9, WITHOUT), "do not fit"),
    *[
        Row("Statistics", f"NaN: `{name}`", "refused", call, "not finite")
        for name, call in {
            "autocovariance": lambda: statistics.autocovariance(NAN, 2),
            "effective_directions": lambda: statistics.effective_directions(NAN),
            "variances": lambda: statistics.variances(PATH, NAN),
            "remove_drift": lambda: statistics.remove_drift(PATH, NAN, "line"),
            "block_errors": lambda: statistics.block_errors(PATH, NAN, 2),
            "drift_share": lambda: statistics.drift_share(NAN),
            "restoring_slope": lambda: statistics.restoring_slope(NAN, NAN),
            "fit_power_law": lambda: statistics.fit_power_law([1, 2, np.inf], [1, 2, 3]),
            "cosine_similarity": lambda: statistics.cosine_similarity(NAN, NAN),
            "random_cosine_similarity":
                lambda: statistics.random_cosine_similarity(NAN[3], np.ones(2), 9),
            "alignment": lambda: statistics.alignment(np.eye(2) * np.inf, np.ones(2)),
        }.items()
    ],
    Row("Statistics", "as many weights as velocities: `variances`", "refused",
        lambda: statistics.variances(PATH, PATH), "need 12 weights, not 11"),
    Row("Statistics", "weights and velocities along different directions", "refused",
        lambda: statistics.variances(PATH, PATH[1:, :1]), "different numbers of directions"),
    Row("Statistics", "recordings of different lengths: `assemble`", "refused",
        lambda: trajectory.assemble(PATH, PATH, PATH[1:]), r"all be \[T, k\]"),
    Row("Statistics", "directions of another length", "refused",
        lambda: trajectory.project(np.ones((2, 4)), np.ones((2, 3))), r"\[2, 4\] and \[2, 3\]"),
]  # fmt: skip


def rendered():
    """The table as docs/inputs.md has it."""
    lines = [
        "# What the library accepts", "",
        "Made from `tests/inputs_table.py`, whose rows are tests: `python -m tests.inputs_table`.",
        "What is refused is a `ValueError` of one line that names the cause and the remedy.",
        "Counts may be Python's or NumPy's integers, examples NumPy's or JAX's arrays in any "
        "pytree.",
    ]  # fmt: skip
    for kind in dict.fromkeys(row.kind for row in ROWS):
        lines += ["", f"## {kind}", "", "| given | then |", "|---|---|"]
        lines += [f"| {row.given} | {row.outcome} |" for row in ROWS if row.kind == kind]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from pathlib import Path

    Path(__file__).parent.parent.joinpath("docs", "inputs.md").write_text(rendered())
