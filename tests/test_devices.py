"""One mesh over four CPU devices of a process gives the numbers of one device, on all of them.

What is compared was computed by a process of four devices, all at once, and by this one.
"""

import json
import os
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antisgd import devices, ensemble, hessian, lanczos, objective, trajectory
from tests import test_ensemble, tiny

pytestmark = pytest.mark.usefixtures("quick_to_compile")
EPS = np.finfo(np.float32).eps
# No multiple of four, so that columns are filled up; a segment of a few vectors, so that there
# are several.
D, K = 42, 6
KEY = jax.random.key(3)


@cache
def operator():
    turned, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))
    spectrum = 0.9 ** np.arange(D)
    return jnp.asarray((turned * spectrum) @ turned.T, jnp.float32), spectrum


def solve(mesh, dimension=D, k=K, **more):
    matrix = operator()[0][:dimension, :dimension]
    matvec = jax.tree_util.Partial(partial(jnp.matmul, precision="highest"), matrix)
    return lanczos.leading_eigenpairs(matvec, dimension, k, key=KEY, mesh=mesh, **more)


def loss(params, examples, weights):
    inputs, targets = examples
    residuals = jnp.tanh(inputs @ params["kernel"]) - targets
    return jnp.sum(weights * residuals**2) / jnp.sum(weights) + 1e-2 * jnp.sum(
        params["kernel"] ** 2
    )


PARAMS = {"kernel": np.linspace(-1, 1, test_ensemble.D, dtype=np.float32)}


def gradient(mesh):
    """Of 24 examples in microbatches of 9, and of three of them, fewer than devices."""

    @partial(jax.jit, static_argnums=2)
    def of(params, examples, size):
        return objective.full_gradient(loss, params, examples, size, mesh=mesh)["kernel"]

    few = jax.tree.map(lambda leaf: leaf[:3], test_ensemble.examples())
    placed = devices.whole((PARAMS, test_ensemble.examples(), few), mesh)
    return [of(placed[0], placed[1], 9), of(placed[0], placed[2], 2)]


def projection(mesh):
    rows = np.random.default_rng(1).normal(size=(2, 3, D)).astype(np.float32)
    of = jax.jit(trajectory.project, static_argnums=2)
    return of(devices.columns(rows[0], mesh), rows[1], mesh)


def curvature():
    """The Hessian, and its pairs by a solve that was told of no mesh."""
    matvec = hessian.hessian_vector_product(
        loss, PARAMS, test_ensemble.examples(), microbatch_size=7
    )
    pairs = lanczos.leading_eigenpairs(matvec, test_ensemble.D, 3, key=KEY, probe_products=0)
    return jax.vmap(matvec)(jnp.eye(test_ensemble.D)), pairs.values


def networks(deal):
    """Three epochs of three networks, and their mean weights by `each_network`."""
    init_keys, keys = ensemble.network_keys(0, 3)
    optimizer = test_ensemble.optimizer_at
    states = ensemble.init(lambda key: jax.random.normal(key, (5,)), optimizer(0), init_keys)
    epoch = ensemble.make_epoch(
        test_ensemble.loss, optimizer, [test_ensemble.SCHEMES[0]], test_ensemble.S
    )
    examples = test_ensemble.examples()
    if deal:
        states, examples = ensemble.over_devices(states), ensemble.on_all_devices(examples)
    for e in range(3):
        states, losses = epoch(states, keys, e, examples)
    mean = ensemble.each_network(lambda params, examples: jnp.mean(params) + jnp.mean(examples[0]))
    return states, losses, mean, examples


def measured(mesh):
    """All that is compared, by name."""
    states, losses, mean, examples = networks(mesh is not None)
    density = lanczos.spectral_density(
        jax.tree_util.Partial(jnp.matmul, operator()[0]), D, key=KEY, num_probes=1, num_steps=5,
        mesh=mesh,
    )  # fmt: skip
    return {
        "params": states.params[:3], "losses": losses,
        "evaluated": mean(states.params, examples)[:3],
        "gradient": gradient(mesh)[0], "gradient of few": gradient(mesh)[1],
        "projection": projection(mesh), "curvature": curvature()[0],
        "density": density.nodes, "pairs of one": curvature()[1],
    }, states  # fmt: skip


def solves(mesh):
    """A solve, one whose basis is restarted and all pairs of a small operator."""
    return solve(mesh), solve(mesh, memory=20 * D * 4), solve(mesh, 5, 5, block_size=2)


def facts(states, pairs, restarted):
    """What lies where on four devices, and what the programs exchange."""
    segment = pairs.state.basis[0]
    mean = ensemble.each_network(lambda params, examples: jnp.mean(params) + jnp.mean(examples[0]))
    examples = ensemble.on_all_devices(test_ensemble.examples())
    code = mean.lower(states.params, examples).compile().as_text()
    return {
        "networks": [shard.data.shape[0] for shard in states.params.addressable_shards],
        "columns": [shard.data.shape[1] for shard in segment.addressable_shards],
        "segments": len(pairs.state.basis),
        "filling": float(jnp.abs(pairs.vectors[:, D:]).max()),
        "orthogonality": [one.certificate.orthogonality for one in (pairs, restarted)],
        "restarted": len(restarted.state.kept),
        "gathers": code.count("all-gather") + code.count("all-to-all"),
    }


def four():
    """In the process of four devices: writes what it found."""
    jax.config.update("jax_disable_most_optimizations", True)
    devices.prepare()
    lanczos.basis._SEGMENT, lanczos.basis._LEAST_ROWS = 1, 8
    found, states = measured(devices.mesh())
    pairs, restarted, small = solves(devices.mesh())
    more = {
        "values": pairs.values, "restarted": restarted.values, "small": small.values,
        "vectors": pairs.vectors[:, :D],
    }  # fmt: skip
    np.savez(sys.argv[1], **{name: devices.fetched(one) for name, one in (found | more).items()})
    print(json.dumps(facts(states, pairs, restarted)))


@pytest.fixture(scope="module")
def on_four(tmp_path_factory):
    path = tmp_path_factory.mktemp("devices") / "found.npz"
    done = subprocess.run(
        [sys.executable, "-c", "from tests import test_devices as t; t.four()", str(path)],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "4"}, cwd=tiny.ROOT, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with np.load(path) as file:
        return dict(file), json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def on_one():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanczos.basis, "_SEGMENT", 1)
        patch.setattr(lanczos.basis, "_LEAST_ROWS", 8)
        found, _ = measured(None)
        return found


@pytest.mark.parametrize(
    "name", ["params", "losses", "evaluated", "gradient", "gradient of few", "projection",
             "curvature", "density", "pairs of one"],
)  # fmt: skip
def test_four_devices_give_the_numbers_of_one(on_four, on_one, name):
    """Within the rounding of some hundred operations on numbers of size one."""
    np.testing.assert_allclose(on_four[0][name], on_one[name], atol=1000 * EPS, rtol=0)


def test_the_pairs_of_four_devices_are_those_of_the_operator(on_four):
    matrix, spectrum = operator()
    vectors = on_four[0]["vectors"]
    for name in ("values", "restarted"):
        np.testing.assert_allclose(on_four[0][name], spectrum[:K], atol=100 * EPS)
    small = np.linalg.eigvalsh(np.asarray(matrix, np.float64)[:5, :5])[::-1]
    np.testing.assert_allclose(on_four[0]["small"], small, atol=100 * EPS)
    images = np.asarray(vectors, np.float64) @ np.asarray(matrix, np.float64)
    residuals = np.linalg.norm(images - on_four[0]["values"][:, None] * vectors, axis=1)
    assert (residuals < 1e-3 * spectrum[:K] + 100 * EPS).all()


def test_every_device_has_its_networks_and_its_columns(on_four):
    known = on_four[1]
    assert known["networks"] == [1, 1, 1, 1]
    assert known["columns"] == [11, 11, 11, 11] and known["segments"] > 1
    assert known["filling"] == 0
    assert known["restarted"] > 0
    assert max(known["orthogonality"]) < 20 * EPS


def test_evaluation_gathers_no_weights(on_four):
    assert on_four[1]["gathers"] == 0


def test_a_segment_holds_many_vectors_of_any_length():
    assert lanczos.basis.segment_rows(136_886) == 122
    assert lanczos.basis.segment_rows(25_000_000) == 64


def test_only_one_module_asks_for_devices():
    """All else takes the mesh, or what is placed for it."""
    asks = ("jax.devices(", "jax.local_devices(", "device_count(", "process_index(",
            "process_count(", "default_backend(", "memory_stats(")  # fmt: skip
    for path in sorted((Path(tiny.ROOT) / "antisgd").rglob("*.py")):
        if path.name != "devices.py":
            assert not [word for word in asks if word in path.read_text()], path
