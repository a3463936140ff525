"""Recorded runs whose truth is known: SGD on small losses, fed by real streams of indices.

Each example n pulls along k directions with a_n, Σ_n a_n = 0; SGD's gradient is that of the loss
plus the mean pull of the batch. Cases are functions of a seed, which also draws how long the run
is, along how many directions, and which arrays were recorded.
"""

from functools import partial

import jax
import numpy as np

from antisgd import sampling
from antisgd.audit import Recording

N, S, BURN = 1000, 20, 20
M = N // S
ETA, BETA = 0.05, 0.9
CROSS = 3 * (1 - BETA) / (ETA * M)


@partial(jax.jit, static_argnums=(0, 2))
def _epochs(scheme, key, epochs):
    return jax.vmap(lambda epoch: getattr(sampling, scheme)(key, epoch, N, S))(
        jax.numpy.arange(epochs)
    )


def stream(scheme, seed, epochs):
    """Indices of a scheme of the library, [epochs * M, S]."""
    found = _epochs(scheme, jax.random.key(seed), epochs).indices
    return np.asarray(found).reshape(-1, S)


def buffered(seed, epochs, buffer):
    """What a shuffle buffer over a fixed list yields, anew every epoch, [epochs * M, S]."""
    rng = np.random.default_rng([seed, 1])
    orders = []
    for _ in range(epochs):
        held, order = list(range(buffer)), []
        for place in rng.random(N):
            at = int(place * len(held))
            order.append(held[at])
            following = len(order) + buffer - 1
            if following < N:
                held[at] = following
            else:
                held[at] = held[-1]
                held.pop()
        orders.append(order)
    return np.array(orders).reshape(-1, S)


def pulls(rng, k, carried_by=None):
    """a_n of the examples, [N, k]: heavy-tailed, or next to nothing but for a few."""
    a = rng.standard_t(8, (N, k))
    if carried_by:
        a *= 0.01
        a[rng.choice(N, carried_by, replace=False)] = 10 * rng.choice([-1, 1], (carried_by, k))
    return a - a.mean(axis=0)


def descend(gradient, noise, beta=BETA, drift=0.0):
    """Heavy ball: weights [T + 1, k] and gradients [T, k]; the minimum moves by drift a step."""
    theta, v = np.zeros(noise.shape[1]), np.zeros(noise.shape[1])
    weights, gradients = [theta], []
    for step, n in enumerate(noise):
        g = gradient(theta - drift * max(step - BURN * M, 0)) + n
        v = beta * v - ETA * g
        theta = theta + v
        weights.append(theta)
        gradients.append(g)
    return np.array(weights), np.array(gradients)


def shape(seed):
    """A generator, the number of directions and of recorded epochs, curvatures about λ_cross."""
    rng = np.random.default_rng([seed, 0])
    k, epochs = int(rng.choice([6, 15, 40])), int(rng.choice([20, 40]))
    return rng, k, epochs, CROSS * np.geomspace(0.2, 20, k)


def recorded(
    rng, scheme, seed, epochs, lam, *, gradient=None, carried_by=None, indices=None, **more
):
    """A run that is recorded after BURN epochs: a `Recording` with all arrays, and θ of its start.

    gradient: of the loss, λθ by default.
    """
    beta, drift = more.pop("beta", BETA), more.pop("drift", 0.0)
    indices = stream(scheme, seed, epochs + BURN) if indices is None else indices
    a = pulls(rng, len(lam), carried_by)
    noise = a[indices].mean(axis=1)
    weights, g = descend(gradient or (lambda x: lam * x), noise, beta, drift)
    kept = slice(BURN * M, None)
    made = Recording(
        ETA, BETA, N, S, weights=weights[kept], gradients=g[kept], indices=indices[kept],
        curvatures=lam, example_gradients=a,
    )  # fmt: skip
    return made._replace(**more), weights[kept]


def clean(seed):
    """Stationary on a parabola, as said: three schemes, several sets of recorded arrays."""
    rng, k, epochs, lam = shape(seed)
    scheme = ("without_replacement", "with_replacement", "independent_batches")[seed % 3]
    made, _ = recorded(rng, scheme, seed, epochs, lam, claimed=scheme)
    return _thinned(rng, made)


def _thinned(rng, made, keep=()):
    """Without some of what need not be recorded."""
    optional = [name for name in ("gradients", "indices", "example_gradients") if name not in keep]
    left = {name: None for name in optional if rng.random() < 0.5}
    return made._replace(**left)


def drifting(seed):
    """The minimum moves on a line, in all by 4 to 8 standard deviations of each weight."""
    rng, k, epochs, lam = shape(seed)
    scheme = ("without_replacement", "with_replacement")[seed % 2]
    _, still = recorded(rng, scheme, seed, epochs, lam)
    far = still.std(axis=0) * rng.uniform(4, 8, k) * rng.choice([-1, 1], k)
    rng = shape(seed)[0]
    made, _ = recorded(rng, scheme, seed, epochs, lam, claimed=scheme, drift=far / (epochs * M))
    return _thinned(rng, made)


def quartic(seed):
    """κθ⁴/4, of no curvature at its minimum; λ is what a Hessian product finds at the start.

    Every second one has Hessian products along the stretch, too.
    """
    rng, k, epochs, _ = shape(seed)
    scheme = ("without_replacement", "with_replacement")[seed // 2 % 2]
    kappa = np.geomspace(0.3, 30, k)
    made, theta = recorded(
        rng, scheme, seed, epochs, np.ones(k), gradient=lambda x: kappa * x**3, claimed=scheme
    )
    curvature = 3 * kappa * theta**2
    made = made._replace(curvatures=curvature[0])
    if seed % 2:
        made = made._replace(path_curvatures=curvature[:: M * 2])
    return _thinned(rng, made, keep=("indices",))


def few_examples(seed):
    """Three of a thousand examples carry the noise."""
    rng, k, epochs, lam = shape(seed)
    scheme = ("without_replacement", "with_replacement")[seed % 2]
    made, _ = recorded(rng, scheme, seed, epochs, lam, claimed=scheme, carried_by=3)
    return _thinned(rng, made, keep=("indices",))


def windowed(seed):
    """A shuffle buffer of a twentieth to a half of the examples, said to be a full shuffle."""
    rng, k, epochs, lam = shape(seed)
    buffer = int(rng.choice([50, 200, 500]))
    indices = buffered(seed, epochs + BURN, buffer)
    made, _ = recorded(rng, "", seed, epochs, lam, indices=indices)
    return _thinned(rng, made, keep=("indices",))


def replaced(seed):
    """With replacement, said to be without; every second one without indices."""
    rng, k, epochs, lam = shape(seed)
    made, _ = recorded(rng, "with_replacement", seed, epochs, lam)
    made = _thinned(rng, made, keep=("indices",))
    return made._replace(indices=None) if seed % 2 else made


def mis_stated(seed):
    """Momentum off the stated 0.9 by 0.03 to 0.05; gradients recorded or weights alone."""
    rng, k, epochs, lam = shape(seed)
    scheme = ("without_replacement", "with_replacement")[seed % 2]
    beta = BETA + rng.choice([-1, 1]) * rng.uniform(0.03, 0.05)
    made, _ = recorded(rng, scheme, seed, epochs, lam, claimed=scheme, beta=beta)
    return _thinned(rng, made)


# Case → how it is made, and the name of the finding that must come out, alone.
CASES = {
    "stationary, as said": (clean, None),
    "drifting minimum": (drifting, "drifting"),
    "pure quartic": (quartic, "anharmonic"),
    "noise of three examples": (few_examples, "carried by few examples"),
    "shuffle buffer, said full": (windowed, "sampled otherwise than said"),
    "with replacement, said without": (replaced, "sampled otherwise than said"),
    "momentum mis-stated": (mis_stated, "momentum mis-stated"),
}
