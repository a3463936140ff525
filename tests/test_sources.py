"""Examples that are read piece by piece: the same steps, the same sums, and little memory."""

import dataclasses
import threading
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from antisgd import (
    ensemble,
    heavy_ball,
    hessian,
    lanczos,
    objective,
    results,
    sampling,
    sources,
    streaming,
    study,
    trajectory,
)
from tests import tiny

N, S, D = 47, 5, 6
EPS = np.finfo(np.float32).eps


def loss(params, examples, weights):
    x, y = examples
    off = jnp.tanh(x @ params["kernel"]) - y
    return jnp.sum(weights * off**2) / jnp.sum(weights) + 0.01 * jnp.sum(params["kernel"] ** 2)


def init(key):
    return {"kernel": jax.random.normal(key, (D,))}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, D)).astype(np.float32), rng.random(N).astype(np.float32)


def mapped(folder, arrays):
    paths = [folder / f"{i}.npy" for i in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    return tuple(np.load(path, mmap_mode="r") for path in paths)


def source(arrays):
    return sources.Source(len(arrays[0]), lambda rows: tuple(array[rows] for array in arrays))


@pytest.fixture(params=["mapped", "source"])
def examples(request, tmp_path, arrays):
    return mapped(tmp_path, arrays) if request.param == "mapped" else source(arrays)


def test_sums_over_pieces_are_those_over_all(examples, arrays):
    """To rounding of the sums, of N terms of the size of the largest."""
    held, params = jax.tree.map(jnp.asarray, arrays), init(jax.random.key(1))
    block = jax.random.normal(jax.random.key(2), (3, D))
    matvec = hessian.hessian_vector_product(loss, params, held, microbatch_size=N)
    exact = jax.vmap(matvec)(block)
    product = streaming.hessian_product(loss, params, examples, microbatch_size=10)
    np.testing.assert_allclose(product(block), exact, atol=10 * EPS * np.abs(exact).max())
    gradient = objective.full_gradient(loss, params, held, N)["kernel"]
    found = streaming.full_gradient(loss, params, examples, 10)["kernel"]
    np.testing.assert_allclose(found, gradient, atol=10 * EPS * np.abs(gradient).max())
    each = trajectory.example_gradients(loss, params, held, block, microbatch_size=N)
    found = streaming.example_gradients(loss, params, examples, block, microbatch_size=10)
    np.testing.assert_allclose(found, each, atol=10 * EPS * np.abs(each).max())
    measured = streaming.mean(
        lambda params, part: {"loss": loss(params, part, jnp.ones(len(part[0])))}, params,
        examples, 10,
    )  # fmt: skip
    assert measured["loss"] == pytest.approx(float(loss(params, held, jnp.ones(N))), rel=1e-6)


def test_a_solve_over_pieces_has_the_eigenvalues_of_the_dense_hessian(examples, arrays):
    params = init(jax.random.key(1))
    operator = streaming.products(loss, params, examples, 10)
    pairs = lanczos.leading_eigenpairs(**operator, dimension=D, k=3, key=jax.random.key(0))
    held = jax.tree.map(jnp.asarray, arrays)
    dense = jax.hessian(lambda k: loss({"kernel": k}, held, jnp.ones(N)))(params["kernel"])
    exact = np.linalg.eigvalsh(np.asarray(dense, np.float64))[::-1]
    np.testing.assert_allclose(pairs.values, exact[:3], atol=1e-5 * exact[0])


@pytest.mark.parametrize("steps", [3])
def test_an_epoch_in_pieces_has_the_bits_of_one_in_memory(examples, arrays, steps, monkeypatch):
    """Two seeds, two schemes, a partial last batch; a state, keys and aux beside them."""
    monkeypatch.setattr(sources, "CHUNK_BYTES", steps * 4 * S * 4 * (D + 1))

    def stepwise(params, state, batch, weights, key):
        kept = jax.random.bernoulli(key, 0.8, (D,))
        value = loss({"kernel": kept * params["kernel"]}, batch, weights)
        return value, 0.9 * state + value, {"seen": jnp.sum(batch[1])}

    def optimizer_at(epoch, rate):
        return optax.sgd(rate * 0.9**epoch, 0.5)

    schemes = [sampling.without_replacement, sampling.with_replacement]
    init_keys, keys = (jnp.tile(one, 2) for one in ensemble.network_keys(3, 2))
    rates, found = jnp.array([0.1, 0.2, 0.1, 0.2]), []
    for make, given in ((ensemble, jax.tree.map(jnp.asarray, arrays)), (streaming, examples)):
        start = partial(ensemble.init, init, optimizer_at(0, 0.1), init_keys)
        for what, states in (
            (loss, start()), (heavy_ball.Stepwise(stepwise), start(lambda key: jnp.zeros(()))),
        ):  # fmt: skip
            epoch = make.make_epoch(what, optimizer_at, schemes, S)
            for number in range(2):
                states, told = epoch(states, keys, number, given, rates)
            found.append(jax.device_get((states, told)))
    for of_arrays, of_pieces in zip(found[:2], found[2:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, of_arrays, of_pieces)


def test_pieces_of_a_schedule_keep_its_order(examples, arrays):
    schedule = sampling.with_replacement(jax.random.key(0), 0, N, S)
    pieces = [jax.tree.map(lambda a, i=i: a[i : i + 4], schedule) for i in range(0, 10, 4)]
    for piece, (few, counted) in zip(pieces, sources.fed(examples, pieces), strict=True):
        for array, gathered in zip(arrays, few, strict=True):
            np.testing.assert_array_equal(gathered[counted.indices], array[piece.indices])
        np.testing.assert_array_equal(counted.weights, piece.weights)
        assert type(few[0]) is np.ndarray


def test_one_piece_is_read_ahead_and_no_more(arrays):
    """While a piece is in use the next is read, and the one after that is not begun."""
    begun, held = ([threading.Event() for _ in range(5)] for _ in range(2))
    meanwhile = []

    def take(rows):
        number = rows[0] // 10
        begun[number].set()
        # Nobody waits for this read before the last piece is used.
        meanwhile.append(number == 0 or held[number - 1].wait(10))
        return tuple(array[rows % N] for array in arrays)

    for number, _ in enumerate(sources.microbatches(sources.Source(50, take), 10)):
        if number < 4:
            assert begun[number + 1].wait(10)
        if number < 3:
            assert not begun[number + 2].is_set()
        held[number].set()
    assert meanwhile == [True] * 5


def anonymous():
    """Bytes of this process that are no pages of files."""
    words = Path("/proc/self/status").read_text()
    return 1024 * int(words.partition("RssAnon:")[2].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' own count")
def test_ten_times_the_memory_that_is_allowed(tmp_path, monkeypatch):
    """Product, gradient and an epoch over 320 MB: the process grows by less than a tenth of it."""
    rows, width, batch = 80_000, 1000, 250
    path = tmp_path / "x.npy"
    # A file of holes: it has its size, and reads as zeros.
    np.lib.format.open_memmap(path, "w+", np.float32, (rows, width))[::1000] = 1
    x = np.load(path, mmap_mode="r")
    assert x.nbytes == path.stat().st_size - 128 == 320_000_000
    monkeypatch.setattr(sources, "CHUNK_BYTES", 4 * width * batch)

    def flat(params, examples, weights):
        return jnp.sum(weights * jnp.tanh(examples @ params) ** 2) / jnp.sum(weights)

    params, seen = jnp.ones(width) / width, []
    watched = sources.Source(rows, lambda rows: (seen.append(anonymous()), x[rows])[1])
    epoch = streaming.make_epoch(flat, lambda e: optax.sgd(0.1), [sampling.shuffle_once], batch)
    states = ensemble.init(
        lambda key: params, optax.sgd(0.1), jax.random.split(jax.random.key(0), 1)
    )

    def all_of_it(examples):
        product = streaming.hessian_product(flat, params, examples, microbatch_size=batch)
        streaming.full_gradient(flat, params, examples, batch)
        epoch(states, jax.random.split(jax.random.key(1), 1), 0, examples)
        return product(np.ones((2, width), np.float32))

    def begun(rows):
        raise KeyboardInterrupt

    # Programs, that of so many rows' order among them, and threads are there before it is measured.
    all_of_it(sources.Source(4 * batch, watched.take))
    with pytest.raises(KeyboardInterrupt):
        epoch(states, jax.random.split(jax.random.key(1), 1), 1, sources.Source(rows, begun))
    before = anonymous()
    seen.clear()
    assert np.isfinite(all_of_it(watched)).all()
    assert len(seen) >= 3 * rows // batch
    assert max(*seen, anonymous()) - before < x.nbytes / 10


SETTINGS = study.Settings(
    batch_size=S, learning_rate=0.05, epochs=2, analysis_epochs=3, eigenpairs=3,
    microbatch_size=10, full_gradient="quadratic", sampling=("without_replacement",),
    stages=("train", "eigenpairs", "analysis", "covariance", "validity"),
)  # fmt: skip


def test_a_study_of_a_mapped_set_is_that_of_arrays(tmp_path, arrays, monkeypatch):
    monkeypatch.setattr(sources, "CHUNK_BYTES", 3 * S * 4 * (D + 1))
    held = study.Problem(init, loss, jax.tree.map(jnp.asarray, arrays))
    on_disk = dataclasses.replace(held, train=mapped(tmp_path, arrays))
    found = []
    with tiny.small():
        for name, problem in (("held", held), ("disk", on_disk)):
            study.run(problem, SETTINGS, tmp_path / name)
            found.append(tiny.arrays_of(tmp_path / name))
    one, other = found
    assert one.keys() == other.keys()
    for name in ("params", "train_loss"):
        np.testing.assert_array_equal(one[f"training.npz:{name}"], other[f"training.npz:{name}"])
    inside = "trajectory_without_replacement"
    # The path does not know what it is projected on; eigenvectors are told to 1e-3 of a gap.
    np.testing.assert_array_equal(*(each[f"{inside}/kept_weights.npy:"] for each in found))
    values = one["eigenpairs.npz:values"]
    np.testing.assert_allclose(other["eigenpairs.npz:values"], values, atol=1e-5 * values[0])
    for name in (f"{inside}/noise.npy:", f"{inside}/anchors.npz:gradients"):
        scale = np.abs(one[name]).max()
        np.testing.assert_allclose(np.abs(other[name]), np.abs(one[name]), atol=2e-2 * scale)
    for name in ("covariance.npz:examples", "validity_without_replacement.npz:curvature"):
        np.testing.assert_allclose(
            np.abs(other[name]), np.abs(one[name]), atol=1e-2 * np.abs(one[name]).max()
        )
    # The same data, so that one is gone on with as the other.
    fingerprints = [results.read_json(tmp_path / n / "config.json") for n in ("held", "disk")]
    assert fingerprints[0]["data_fingerprint"] == fingerprints[1]["data_fingerprint"]


def test_what_needs_all_examples_at_once_is_refused(tmp_path, arrays):
    exact = dataclasses.replace(SETTINGS, full_gradient="exact")
    problem = study.Problem(init, loss, source(arrays))
    with pytest.raises(ValueError, match="use --full_gradient=quadratic"):
        study.run(problem, exact, tmp_path / "run")
    summed = study.Problem(init, lambda p, e, w: N * loss(p, e, w), source(arrays))
    with pytest.raises(ValueError, match="no weighted mean"):
        streaming.full_gradient(
            lambda p, e, w: jnp.sum(w) * loss(p, e, w), init(jax.random.key(0)), summed.train, 10
        )
    short = sources.Source(N, lambda rows: tuple(array[rows[:-1]] for array in arrays))
    with pytest.raises(ValueError, match=r"gave arrays of \[\(1,\)\] examples for 2 rows"):
        sources.gather(short, np.arange(2))


def test_arrays_that_do_not_fit_the_device_are_read_too(arrays, monkeypatch):
    assert not sources.streamed(arrays)
    monkeypatch.setattr(sources.devices, "memory", lambda: 2 * sum(a.nbytes for a in arrays) - 1)
    assert sources.streamed(arrays)
    assert not sources.streamed(jax.tree.map(jnp.asarray, arrays))
