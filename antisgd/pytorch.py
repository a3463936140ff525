"""A loss written in PyTorch as one that JAX calls and differentiates; PyTorch does the computing.

JAX's programs call back to the host for the value, the gradient and Hessian products of a batch,
so that everything that takes a loss takes this one, `study` included, with the module as it is.
Gradients and products are those of `torch.func`; what is around them (schedules, optimisers, the
eigen-solver, recording) is JAX's. PyTorch is imported when it is first needed.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

__all__ = ["parameters", "traceable"]

Loss = Callable[[Any, Any, Any], Any]


def parameters(module: Any) -> dict[str, jax.Array]:
    """The module's trainable parameters by name, copied: θ as JAX holds it.

    A flat vector of them, such as an eigenvector, has them in the order of their sorted names.
    """
    found = {name: leaf for name, leaf in module.named_parameters() if leaf.requires_grad}
    return {name: jnp.array(leaf.detach().cpu().numpy()) for name, leaf in found.items()}


def traceable(loss: Loss) -> Loss:
    """The same loss for JAX: its value, its gradient, and products with its Hessian.

    ∇L and (d/dε) ∇L(θ + εv) are `torch.func.grad` and `torch.func.jvp` of it, on the host: what
    lies on an accelerator makes the way there and back in every step. Vectors of a block are
    multiplied one by one.

    Args:
        loss: `loss(params, examples, weights)` in PyTorch, a weighted mean plus penalties and a
            function of its arguments alone: params a pytree of tensors, such as the dict that
            `torch.func.functional_call` takes; examples a pytree of tensors with a leading example
            axis; weights [n]. Integers come as int64. Batch normalisation has to be in evaluation
            mode and dropout off, as after `module.eval()`.

    Returns:
        The loss for JAX, of pytrees of arrays, differentiable twice with respect to params.

    Raises:
        ModuleNotFoundError: without PyTorch.
        TypeError: when called, a derivative with respect to examples or weights.
        ValueError: when called, params that are no floating-point arrays.
    """
    torch = _torch()
    gradient = torch.func.grad(loss)

    def product(direction: Any, params: Any, examples: Any, weights: Any) -> Any:
        def along(params: Any) -> Any:
            return gradient(params, examples, weights)

        return torch.func.jvp(along, (params,), (direction,))[1]

    @jax.custom_jvp
    def slope(params: Any, examples: Any, weights: Any) -> Any:
        return _on_host(gradient, params, params, examples, weights)

    @jax.custom_jvp
    def value(params: Any, examples: Any, weights: Any) -> Any:
        _check(params)
        one = jax.ShapeDtypeStruct((), jnp.result_type(*jax.tree.leaves(params)))
        return _on_host(loss, one, params, examples, weights)

    def slope_and_change(primals: Any, tangents: Any) -> tuple[Any, Any]:
        direction = _direction(*tangents)
        change = _on_host(product, primals[0], direction, *primals)
        return slope(*primals), change

    def value_and_change(primals: Any, tangents: Any) -> tuple[Any, Any]:
        pairs = zip(*map(jax.tree.leaves, (slope(*primals), _direction(*tangents))), strict=True)
        return value(*primals), sum(jnp.sum(one * other) for one, other in pairs)

    slope.defjvp(slope_and_change, symbolic_zeros=True)
    value.defjvp(value_and_change, symbolic_zeros=True)
    return value


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a loss of PyTorch needs PyTorch: pip install 'antisgd[torch]'"
        ) from error
    return torch


def _on_host(function: Callable[..., Any], like: Any, *arguments: Any) -> Any:
    """function of tensors, called with these arrays; what it returns is shaped like `like`."""
    torch = _torch()

    def tensor(leaf: Any) -> Any:
        array = np.array(leaf)
        return torch.from_numpy(array.astype(np.int64) if array.dtype.kind in "iu" else array)

    def called(*arrays: Any) -> Any:
        found = function(*jax.tree.map(tensor, arrays))
        return jax.tree.map(lambda leaf, one: one.numpy().astype(leaf.dtype), shapes, found)

    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like)
    return jax.pure_callback(called, shapes, *arguments, vmap_method="sequential")


def _direction(params: Any, examples: Any, weights: Any) -> Any:
    """The tangent of params, zeros where nothing moves; no other argument may move."""
    others = jax.tree.leaves((examples, weights), is_leaf=_still)
    if not all(map(_still, others)):
        raise TypeError("a loss of PyTorch is differentiated with respect to params alone")
    return jax.tree.map(
        lambda one: jnp.zeros(one.shape, one.dtype) if _still(one) else one, params, is_leaf=_still
    )


def _still(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)


def _check(params: Any) -> None:
    for leaf in jax.tree.leaves(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"params hold a leaf of {jnp.result_type(leaf)}: give the trainable parameters "
                "alone, the module keeps its buffers"
            )
