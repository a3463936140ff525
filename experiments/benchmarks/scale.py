"""A network of 25 million weights and 5,000 eigenpairs over 64 devices: what each holds and moves.

    python -m experiments.benchmarks.scale [H100:1x8x8]

Compiles, and does not run, the programs of a solve for a transformer of eight layers of width 512,
for the chips named (`v5e:8x8`, `v5p:4x4x4`, …; 'chips' says what has to be installed) and prints a
table in Markdown and, last, one JSON line.
"""

import argparse
import json
from typing import Any

# Before JAX, which it keeps to the CPU.
from experiments.benchmarks import chips  # isort: skip

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from antisgd import hessian, objective
from antisgd.lanczos import basis, iteration, memory_plan, products

WIDTH, LAYERS, HEADS, TOKENS, LENGTH = 512, 8, 8, 256, 128
SEQUENCES, MICROBATCH, PAIRS, BLOCK = 65_536, 8, 5000, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("chips", nargs="?", default="H100:1x8x8")
    options = parser.parse_args()
    found = chips.chips(options.chips)
    told = {}
    for name, lower in tqdm(programs(found).items()):
        told[name] = chips.described(lower)
    print(f"Compiled for {len(found)} chips ({options.chips}), not run; of each device, MB:\n")
    print("| program | arguments | beside them | it sends | exchanged |")
    print("|---|---|---|---|---|")
    for name, one in told.items():
        beside = (one["temporary"] + one["results"]) / 1e6
        kinds = ", ".join(f"{n} {kind}" for kind, n in one["collectives"].items()) or "nothing"
        print(
            f"| {name} | {one['arguments'] / 1e6:,.0f} | {beside:,.0f} | "
            f"{one['exchanged'] / 1e6:,.3f} | {kinds} |"
        )
    d = dimension()
    plan = memory_plan(d, PAIRS)
    held = {
        "weights": d,
        "basis_gb": plan.basis_bytes / len(found) / 1e9,
        "eigenvectors_gb": plan.vectors_bytes / len(found) / 1e9,
    }
    print(
        f"\n{d} weights; a basis of {plan.basis_vectors} vectors is {held['basis_gb']:.1f} GB on "
        f"each device, {PAIRS} eigenvectors are {held['eigenvectors_gb']:.1f} GB"
    )
    print(json.dumps(held | told))


def init(key: jax.Array) -> Any:
    """Weights of the transformer, those of all layers stacked."""
    shapes = {
        "attention": (LAYERS, WIDTH, 3 * WIDTH),
        "mixed": (LAYERS, WIDTH, WIDTH),
        "wide": (LAYERS, WIDTH, 4 * WIDTH),
        "narrow": (LAYERS, 4 * WIDTH, WIDTH),
        "tokens": (TOKENS, WIDTH),
        "places": (LENGTH, WIDTH),
    }
    keys = jax.random.split(key, len(shapes))
    return {
        name: jax.random.normal(one, shape) / shape[-2] ** 0.5
        for one, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def logits(params: Any, tokens: jax.Array) -> jax.Array:
    """Of the next token at every place, [n, length, tokens]."""
    x = params["tokens"][tokens] + params["places"]
    layers = {name: params[name] for name in ("attention", "mixed", "wide", "narrow")}
    x = jax.lax.scan(lambda x, layer: (jax.checkpoint(_layer)(x, layer), None), x, layers)[0]
    return _normalised(x) @ params["tokens"].T


def dimension() -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init, jax.random.key(0))))


def programs(found: list[Any]) -> dict[str, Any]:
    """Name → a function that lowers the program."""
    layout = chips.pretend(found)
    mesh, columns, d = layout.mesh, layout.columns, dimension()
    tokens = np.zeros((SEQUENCES, LENGTH), np.int32)
    params = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(init, jax.random.key(0))
    )

    def loss(params: Any, examples: Any, weights: jax.Array) -> jax.Array:
        losses = objective.cross_entropy(logits(params, examples[0]), examples[1]).mean(1)
        return jnp.sum(weights * losses) / jnp.sum(weights)

    def product() -> Any:
        matvec = hessian.hessian_vector_product(
            loss, params, (tokens, tokens), microbatch_size=MICROBATCH
        )
        return products._apply().lower(matvec, columns(BLOCK, d), d, mesh)

    rows = basis.segment_rows(d, mesh)
    width = basis._SEGMENT // memory_plan(d, PAIRS).basis_vectors
    coefficients = layout.whole(np.zeros((rows, PAIRS), np.float32))
    segment, block = columns(rows, d), columns(BLOCK, d)
    return {
        "block of 8 Hessian products": product,
        f"Gram–Schmidt pass against {rows} vectors": lambda: basis._take_out.lower(
            segment, block, mesh
        ),
        "factorisation of the block": lambda: iteration._qr.lower(block, mesh),
        f"rotation of {width} columns": lambda: basis._strip_product.lower(
            coefficients, segment, np.int32(0), width, mesh
        ),
    }


def _layer(x: jax.Array, layer: Any) -> jax.Array:
    n, length, width = x.shape
    parts = jnp.split(_normalised(x) @ layer["attention"], 3, axis=-1)
    query, key, value = (part.reshape(n, length, HEADS, width // HEADS) for part in parts)
    seen = jax.nn.dot_product_attention(query, key, value, is_causal=True)
    x = x + seen.reshape(n, length, width) @ layer["mixed"]
    return x + jax.nn.gelu(_normalised(x) @ layer["wide"]) @ layer["narrow"]


def _normalised(x: jax.Array) -> jax.Array:
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-5)


if __name__ == "__main__":
    main()
