"""Slow and obvious implementations that the fast ones are compared with."""

import numpy as np


def heavy_ball_loop(gradient, params, indices, learning_rate, momentum):
    """Eq. 1 as a Python loop in float64: weights after every step, [steps + 1, d]."""
    theta = np.array(params, np.float64)
    velocity = np.zeros_like(theta)
    path = [theta]
    for batch in indices:
        velocity = momentum * velocity - learning_rate * gradient(theta, batch)
        theta = theta + velocity
        path.append(theta)
    return np.array(path)
