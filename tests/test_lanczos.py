"""Eigenpairs against dense eigensolvers, and what their certificate says against the truth."""

import io
import warnings
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from antisgd import devices, lanczos
from antisgd.lanczos import basis, glance, goal, iteration, projection

EPS = np.finfo(np.float32).eps
D = 400
KEY = jax.random.key(3)


@jax.jit
def _multiply(matrix, vector):
    return jnp.matmul(matrix, vector, precision="highest")


def _operator(values, seed=0):
    """A dense symmetric matrix of these eigenvalues, as a matvec, and its float64 original."""
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values),) * 2))
    matrix = (rotation * values) @ rotation.T
    matrix = ((matrix + matrix.T) / 2).astype(np.float32)
    return Partial(_multiply, jnp.asarray(matrix)), matrix.astype(np.float64)


def _spectrum(dimension=D):
    """A power law with a weak negative tail, descending: what a trained network's looks like."""
    values = np.arange(1, dimension + 1) ** -1.2
    values[::20] *= -0.1
    return np.sort(values)[::-1]


def _true_residuals(matrix, pairs):
    vectors = np.asarray(pairs.vectors, np.float64)
    return np.linalg.norm(vectors @ matrix - pairs.values[:, None] * vectors, axis=1)


def _wanted(values, which, k):
    if which == "magnitude":
        return values[np.argsort(-np.abs(values))][:k]
    if which == "both":
        return np.concatenate([values[: (k + 1) // 2], values[len(values) - k // 2 :]])
    return values[:k] if which == "largest" else values[::-1][:k]


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude", "both"])
def test_finds_the_wanted_end_of_the_spectrum(which):
    matvec, matrix = _operator(_spectrum())
    expected = _wanted(np.linalg.eigvalsh(matrix)[::-1], which, 15)
    pairs = lanczos.leading_eigenpairs(matvec, D, 15, key=KEY, which=which)
    residuals = _true_residuals(matrix, pairs)
    assert (residuals <= 1.1e-3 * np.abs(pairs.values) + 2 * pairs.certificate.noise).all()
    # A Ritz value is off by at most its residual.
    assert (np.abs(pairs.values - expected) <= residuals + 10 * EPS).all()
    assert pairs.converged.all() and pairs.certificate.missed == 0


@pytest.mark.parametrize("block_size", [1, 4])
def test_restarts_within_a_memory_cap_give_the_same_pairs(block_size, monkeypatch):
    # Small segments: the basis has six, and a restart rotates it in strips that do not divide D.
    monkeypatch.setattr(basis, "_SEGMENT", 10 * D)
    matvec, matrix = _operator(_spectrum())
    expected = np.linalg.eigvalsh(matrix)[::-1][:25]
    sizes = []
    pairs = lanczos.leading_eigenpairs(
        matvec,
        D,
        25,
        key=KEY,
        block_size=block_size,
        memory=54 * D * 4,
        callback=lambda state, _: sizes.append(state.size),
    )
    assert max(sizes) <= 54 and min(np.diff(sizes)) < 0, "it never restarted"
    assert np.abs(pairs.values - expected).max() < 20 * EPS
    assert _true_residuals(matrix, pairs).max() < 1.1e-3 * expected[-1]
    gram = np.asarray(pairs.vectors, np.float64) @ np.asarray(pairs.vectors, np.float64).T
    assert np.abs(gram - np.eye(25)).max() < 100 * EPS


def test_the_certificate_tells_the_truth():
    matvec, matrix = _operator(_spectrum())
    pairs = lanczos.leading_eigenpairs(matvec, D, 40, key=KEY)
    truth = _true_residuals(matrix, pairs)
    certificate = pairs.certificate
    assert 0 < certificate.measured.sum() < 40 and certificate.measured[[0, -1]].all()
    floor = 3 * certificate.noise
    np.testing.assert_allclose(
        pairs.residuals[certificate.measured], truth[certificate.measured], rtol=0.01, atol=floor
    )
    np.testing.assert_allclose(pairs.residuals, truth, rtol=0.05, atol=floor)
    # 8 random combinations: their mean square has a relative standard error of √(2/8) at most.
    rms = np.sqrt(np.mean(truth**2))
    assert 0.2 * rms < certificate.rms_residual < 2 * rms + floor
    vectors = np.asarray(pairs.vectors, np.float64)
    error = np.abs(vectors @ vectors.T - np.eye(40)).max()
    assert abs(certificate.orthogonality - error) < 4 * EPS
    assert certificate.converged == 40 and certificate.asymmetry < 20 * EPS


def test_noise_of_the_products_is_measured_and_bounds_what_is_identifiable():
    """Vectors rounded to 6 bits: the noise is known, and gaps drown in it beyond some index."""

    @jax.jit
    def rounded(matrix, vector):
        mantissa, exponent = jnp.frexp(vector)
        return _multiply(matrix, jnp.ldexp(jnp.round(mantissa * 32) / 32, exponent))

    values = _spectrum()
    matvec, matrix = _operator(values)
    noisy = Partial(rounded, *matvec.args)
    top = np.linalg.eigh(matrix)[1][:, -1].astype(np.float32)
    noise = np.linalg.norm(np.asarray(noisy(jnp.asarray(top)), np.float64) - matrix @ top)
    with pytest.warns(UserWarning, match="nearer than the noise"):
        pairs = lanczos.leading_eigenpairs(noisy, D, 60, key=KEY)
    assert noise / 4 < pairs.certificate.noise < 4 * noise
    gaps = -np.diff(pairs.values)
    index = pairs.certificate.identifiable
    assert 0 < index < 59 and gaps[index] < pairs.certificate.noise <= gaps[:index].min()


def test_pairs_whose_tolerance_the_noise_exceeds_are_counted():
    matvec, _ = _operator(_spectrum())
    pairs = lanczos.leading_eigenpairs(matvec, D, 40, key=KEY)
    assert pairs.certificate.noise_limited == 0
    noise = pairs.certificate.noise
    tolerance = float(2 * noise / np.sqrt(pairs.values[10] * pairs.values[11]))
    with warnings.catch_warnings(action="ignore"):
        sharp = lanczos.leading_eigenpairs(
            matvec, D, 40, key=KEY, tolerance=tolerance, state=pairs.state
        )
    assert sharp.certificate.noise == noise and sharp.certificate.noise_limited == 40 - 11


def test_stops_at_a_threshold():
    values = _spectrum()
    matvec, _ = _operator(values)
    pairs = lanczos.leading_eigenpairs(matvec, D, 60, key=KEY, threshold=0.05)
    assert len(pairs.values) == np.sum(values > 0.05) and pairs.converged.all()
    none = lanczos.leading_eigenpairs(matvec, D, 60, key=KEY, threshold=2.0)
    assert len(none.values) == 0 and none.vectors.shape == (0, D)


def _saved(state):
    """What a checkpoint keeps: the state through an .npz file and back."""
    file = io.BytesIO()
    segments = {f"basis_{i}": np.asarray(part) for i, part in enumerate(state.basis)}
    np.savez(file, **segments, **state._replace(basis=())._asdict())
    file.seek(0)
    arrays = dict(np.load(file))
    del arrays["basis"]
    count = sum(name.startswith("basis_") for name in arrays)
    basis = tuple(jnp.asarray(arrays.pop(f"basis_{i}")) for i in range(count))
    scalars = {name: value.item() if value.ndim == 0 else value for name, value in arrays.items()}
    return lanczos.State(basis=basis, **scalars)


@pytest.mark.parametrize("memory", [None, 54 * D * 4])
def test_stopped_anywhere_and_resumed_a_solve_gives_the_same_bits(memory):
    matvec, _ = _operator(_spectrum())

    def solve(state=None, callback=None):
        return lanczos.leading_eigenpairs(
            matvec, D, 25, key=KEY, memory=memory, state=state, callback=callback
        )

    def stop_at(count, every):
        kept, calls = [None], [0]

        def callback(state, _):
            calls[0] += 1
            if calls[0] % every == 0:
                kept[0] = _saved(state)
            if calls[0] == count:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            solve(callback=callback)
        return kept[0]

    whole = solve()
    checkpoints = [stop_at(12, every=4), stop_at(15, every=4), stop_at(3, every=4)]
    in_the_probe = []

    def keep(state, progress):
        if progress.stage == "probe" and progress.products == 5:
            in_the_probe.append(_saved(state))

    solve(callback=keep)
    checkpoints = [*in_the_probe, *checkpoints]
    assert len(in_the_probe) == 1
    finished = _saved(whole.state)
    assert checkpoints[-1] is None and checkpoints[1] is not None
    for state in [*checkpoints, finished]:
        again = solve(state)
        np.testing.assert_array_equal(again.values, whole.values)
        np.testing.assert_array_equal(again.vectors, whole.vectors)
        np.testing.assert_array_equal(again.residuals, whole.residuals)
        assert again.certificate.products == whole.certificate.products


def test_a_finished_solve_is_extended_to_more_pairs():
    matvec, matrix = _operator(_spectrum())
    few = lanczos.leading_eigenpairs(matvec, D, 10, key=KEY)
    many = lanczos.leading_eigenpairs(matvec, D, 40, key=KEY, state=few.state)
    direct = lanczos.leading_eigenpairs(matvec, D, 40, key=KEY)
    expected = np.linalg.eigvalsh(matrix)[::-1][:40]
    assert np.abs(many.values - expected).max() < 20 * EPS
    assert many.certificate.products <= direct.certificate.products + 4 + D // 32


def test_unconverged_pairs_are_marked():
    matvec, matrix = _operator(_spectrum())
    with pytest.warns(UserWarning, match="of 40 eigenpairs are converged"):
        pairs = lanczos.leading_eigenpairs(matvec, D, 40, key=KEY, max_products=56)
    assert pairs.certificate.products <= 64
    truth = _true_residuals(matrix, pairs)
    assert 0 < pairs.converged.sum() < 40
    assert (truth[pairs.converged] < 1.1e-3 * pairs.values[pairs.converged]).all()
    assert (truth[~pairs.converged] > 0.9e-3 * np.abs(pairs.values[~pairs.converged])).all()


def test_the_parts_serve_a_loop_of_ones_own():
    matvec, matrix = _operator(_spectrum())
    state = lanczos.init(matvec, D, key=KEY, block_size=4)
    while state.products < 60:
        state = lanczos.extend(matvec, state)
    pairs = lanczos.ritz(state, "largest", 5)
    assert np.abs(pairs.values - np.linalg.eigvalsh(matrix)[::-1][:5]).max() < 20 * EPS
    state = lanczos.restart(state, "largest", 20)
    again = lanczos.ritz(state, "largest", 5)
    np.testing.assert_allclose(again.values, pairs.values, rtol=1e-12)
    np.testing.assert_allclose(again.bounds, pairs.bounds, atol=1e-12)


def test_earlier_eigenvectors_are_a_warm_start():
    values = np.concatenate([np.linspace(2, 1, 20), np.linspace(0.9, 0, D - 20)])
    matvec, matrix = _operator(values)
    eigenvectors = np.linalg.eigh(matrix)[1][:, -20:].T.astype(np.float32)
    start = np.random.default_rng(0).normal(size=(4, 20)) @ eigenvectors
    cold = lanczos.leading_eigenpairs(matvec, D, 20, key=KEY)
    warm = lanczos.leading_eigenpairs(matvec, D, 20, key=KEY, start=start)
    assert warm.certificate.products < 0.6 * cold.certificate.products
    assert np.abs(warm.values - cold.values).max() < 20 * EPS


def test_float64_reaches_float64():
    _, matrix = _operator(_spectrum())
    with jax.enable_x64(True):
        matvec = Partial(_multiply, jnp.asarray(matrix))
        pairs = lanczos.leading_eigenpairs(matvec, D, 10, key=KEY, tolerance=1e-9)
        vectors = np.asarray(pairs.vectors)
    assert vectors.dtype == np.float64
    error = vectors @ matrix - pairs.values[:, None] * vectors
    assert np.linalg.norm(error, axis=1).max() < 1.1e-9 * pairs.values[0]


def test_progress_counts_up_to_what_is_wanted():
    matvec, _ = _operator(_spectrum())
    seen = []
    pairs = lanczos.leading_eigenpairs(
        matvec, D, 40, key=KEY, block_size=2,
        callback=lambda state, progress: seen.append(progress),
    )  # fmt: skip
    assert all(progress.wanted == 40 for progress in seen)
    stages = {}
    for progress in seen:
        stages.setdefault(progress.stage, []).append(progress)
    for stage, total in (("probe", 32), ("certificate", 16 + 8)):
        counts = [(progress.products, progress.remaining) for progress in stages[stage]]
        assert counts == [(n, total - n) for n in range(2, total + 1, 2)]
    solve = stages["solve"]
    products = [progress.products for progress in solve]
    assert products == sorted(products) and products[-1] == pairs.certificate.products
    assert solve[0].converged == 0 < solve[-1].converged <= 40
    totals = [progress.products + progress.remaining for progress in solve]
    assert max(totals) < 2 * products[-1] and min(totals) > products[-1] / 2


def test_slow_first_pairs_promise_no_tenfold_work():
    """Two pairs in the last forty products, of 300: by that rate alone 5,900 would be left."""
    history = np.array([[300, 0], [460, 3], [500, 5]])
    early = SimpleNamespace(
        history=history, products=500, kept=np.zeros(0), band=np.zeros((500, 1))
    )
    assert 200 < lanczos.progress.estimate(early, 300).remaining < 400
    late = SimpleNamespace(
        history=np.array([[600, 200], [700, 290]]), products=700, kept=np.zeros(0),
        band=np.zeros((700, 1)),
    )  # fmt: skip
    assert 10 < lanczos.progress.estimate(late, 300).remaining < 15


def test_pairs_that_converge_in_bursts_do_not_make_the_estimate_leap():
    """The checks of a solve of 2,000 pairs that took 4,072 products: one pair in the last 48.

    From one to the next the guess of the whole goes up by less than a tenth, and at the end it is
    that near.
    """
    checks = [
        (2016, 1043), (2496, 1158), (2920, 1377), (3232, 1534), (3472, 1684), (3632, 1765),
        (3752, 1834), (3840, 1907), (3888, 1908),
    ]  # fmt: skip
    totals = []
    for count in range(1, len(checks) + 1):
        products = checks[count - 1][0]
        state = SimpleNamespace(
            history=np.array(checks[:count]), products=products, kept=np.zeros(0),
            band=np.zeros((products, 1)),
        )  # fmt: skip
        totals.append(products + lanczos.progress.estimate(state, 2000).remaining)
    assert np.all(np.diff(totals) < 0.1 * 4072)
    np.testing.assert_allclose(totals[4:], 4072, rtol=0.1)


def test_memory_is_planned_and_too_little_is_refused():
    plan = lanczos.memory_plan(136_886, 5000)
    assert 12_000 < plan.basis_vectors < 13_000
    assert plan.basis_bytes == plan.basis_vectors * 136_886 * 4
    assert plan.vectors_bytes == 5000 * 136_886 * 4
    assert lanczos.memory_plan(1000, 900).basis_vectors == 1000
    matvec, _ = _operator(_spectrum())
    with pytest.raises(MemoryError, match="at least 37 vectors"):
        lanczos.leading_eigenpairs(matvec, D, 25, key=KEY, memory=30 * D * 4)


@pytest.mark.parametrize(("k", "size"), [(1, 1), (25, 1), (60, 4), (100, 4), (200, 8), (5000, 8)])
def test_blocks_are_about_a_twentieth_of_the_pairs_and_powers_of_two(k, size):
    assert lanczos.memory_plan(136_886, k).block_size == size


@pytest.mark.parametrize(("k", "size"), [(1, 1), (100, 4), (200, 8), (1000, 16), (5000, 32)])
def test_blocks_are_larger_on_accelerators(k, size, monkeypatch):
    monkeypatch.setattr(devices, "platform", lambda: "gpu")
    assert lanczos.memory_plan(136_886, k).block_size == size


def test_spectral_density_counts_and_averages_the_spectrum():
    values = _spectrum()
    matvec, _ = _operator(values)
    density = lanczos.spectral_density(matvec, D, key=KEY, num_probes=8, num_steps=30)
    np.testing.assert_allclose(density.weights.sum(1), 1, rtol=1e-5)
    for function in (lambda x: x, lambda x: x**2, lambda x: (x > 0.1).astype(float)):
        mean, error = density.mean(function)
        assert abs(mean - function(values).mean()) < 4.8 * error  # t with 7 degrees, p = 2e-3
    other = lanczos.spectral_density(matvec, D, key=jax.random.key(4), num_probes=2, num_steps=30)
    assert not np.array_equal(other.nodes[0], density.nodes[0])


def test_spectral_density_is_exact_when_the_rule_has_all_nodes():
    values = np.array([3.0, 1.0, 0.5, -2.0, 0.1])
    matvec, _ = _operator(values)
    density = lanczos.spectral_density(matvec, 5, key=KEY, num_probes=3, num_steps=9)
    for nodes in density.nodes:
        np.testing.assert_allclose(nodes, np.sort(values)[::-1], atol=20 * EPS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "cannot give 0"),
        ({"k": D + 1}, "cannot give 401"),
        ({"which": "leading"}, "largest, smallest, magnitude, both"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"which": "both", "threshold": 1.0}, "one end"),
        ({"block_size": 0}, "block"),
    ],
)
def test_bad_options_are_named(options, message):
    matvec, _ = _operator(np.ones(2))
    matvec = Partial(_multiply, jnp.zeros((D, D)))
    with pytest.raises(ValueError, match=message):
        lanczos.leading_eigenpairs(matvec, D, **{"k": 2, "key": KEY, **options})


def test_a_matvec_of_another_shape_or_precision_is_refused():
    with pytest.raises(ValueError, match=r"float32\[7\] to float32\[3\]"):
        lanczos.init(lambda v: v[:3], 7, key=KEY, block_size=1)
    with pytest.raises(ValueError, match="bfloat16"):
        lanczos.init(lambda v: v.astype(jnp.bfloat16), 7, key=KEY, block_size=1)


def test_no_warning_when_all_is_well():
    matvec, _ = _operator(_spectrum())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lanczos.leading_eigenpairs(matvec, D, 10, key=KEY)


def test_a_glance_sees_what_a_solve_of_the_projected_problem_sees():
    """Values, bounds and the number converged, with a block that a probe's finds made wider."""
    matvec, _ = _operator(_spectrum())
    state = lanczos.init(matvec, D, key=KEY, block_size=3)
    while state.products < 150:
        state = lanczos.extend(matvec, state)
    state = iteration.inject(state, jax.random.normal(KEY, (4, D)))
    while state.products < 180:
        state = lanczos.extend(matvec, state)
    problem = glance.band(state)
    for which in ("largest", "smallest", "magnitude"):
        exact = lanczos.ritz(state, which, 120)
        values = glance.values(problem, which, 120)
        # Backward stable solvers, of another order of operations.
        np.testing.assert_allclose(values, exact.values, atol=1e3 * np.finfo(float).eps)
        some = np.array([0, 40, 80, 119])
        vectors = glance.vectors(problem, values[some])
        bounds = np.linalg.norm(problem.pending.T @ vectors, axis=0)
        np.testing.assert_allclose(bounds, exact.bounds[some], rtol=1e-4, atol=1e-12)
        looked, aim = state._replace(noise=1e-6), goal.make_goal(D, 120, which, 1e-3, None)
        good = exact.bounds <= goal.allowed(exact.values, aim, looked)
        assert 0 < np.argmin(good) < 120, "all have converged"
        count, wanted = glance.converged(problem, values, aim, looked)
        # The boundary between those that have and those that have not may be ragged.
        assert np.argmin(good) <= count <= 120 - np.argmax(good[::-1]) and wanted == 120
        assert good.argmin() > 60 or which == "smallest"


@pytest.mark.parametrize("options", [{}, {"which": "magnitude"}, {"threshold": 0.012}])
def test_glances_end_a_solve_at_the_same_pairs(options, monkeypatch):
    """Few solves of the projected problem, no pair less; stopped and resumed the same bits."""
    monkeypatch.setattr(glance, "_MANY", 100)
    matvec, matrix = _operator(_spectrum())
    sizes, states, solve = [], [], projection._eigh

    def counted(square, *args, **kwargs):
        sizes.append(len(square))
        return solve(square, *args, **kwargs)

    def keep(state, progress):
        if progress.stage == "solve" and state.products == 104:
            states.append(_saved(state))

    monkeypatch.setattr(projection, "_eigh", counted)
    pairs = lanczos.leading_eigenpairs(matvec, D, 60, key=KEY, callback=keep, **options)
    # The last solve, and those of the probe.
    assert sum(size > 100 for size in sizes) == 1
    wanted = _wanted(np.linalg.eigvalsh(matrix)[::-1], options.get("which", "largest"), 60)
    wanted = wanted[wanted > options.get("threshold", -1)]
    assert len(pairs.values) == len(wanted) and pairs.converged.all()
    assert np.abs(pairs.values - wanted).max() < 20 * EPS
    assert pairs.certificate.missed == 0 and len(pairs.state.history) > 2
    again = lanczos.leading_eigenpairs(matvec, D, 60, key=KEY, state=states[0], **options)
    np.testing.assert_array_equal(again.vectors, pairs.vectors)
    assert again.certificate.products == pairs.certificate.products
