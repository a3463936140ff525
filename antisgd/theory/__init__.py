"""What correlated gradient noise does to the weights: closed forms, to the last digits.

The noise laws (`noise`): what a sampling scheme does, as a value

    without_replacement(steps_per_epoch)      Eq. 2, the paper's epochs
    with_replacement(), independent_batches() white
    partial_last, drop_last, spanning_batches N not a multiple of S
    shuffle_once, flip_flop, anti_pgd, from_indices
    autocorrelation(noise, lags)              r(h), Eq. 2

What the weights do

    stationary_variances, correlation_time    Eq. 3 and 6, stable at any curvature
    crossover_eigenvalue, max_correlation_time   λ_cross and τ_SGD, Eq. 9 and 109
    crossover_function                        the uniform form Φ
    steep_variances, flat_variances           the two regimes, Eq. 8 and 9
    trace_ratio                               Eq. 111 (corrected)
    loss_fluctuation, loss_fluctuation_reduction   ½ Σ λσ_θ² and the 62 % of Sec. 7
    window_variances, window_spread           what T recorded steps show of all this
    phase_variances, own_step_share           within the epoch
    fluctuation_split, velocity_autocovariance   the relation that holds for any loss; Eq. 3's sums

Away from the stationary state

    decay_variances                           along a learning-rate schedule
    relaxed_window_variances                  windows whose noise-free path was subtracted
    visited_weights                           where a window goes from a given beginning

Where the loss is no parabola

    self_consistent, polynomial_averages      curvature and noise averaged over the fluctuations
    visited_averages                          the same over the weights that a window visits
    anharmonic_variance                       one direction whose loss is known as a function

Designing the noise

    correlation_response, loss_fluctuation_slope   derivatives in each correlation r(h)
    averaged_variances, average_response      the mean of T consecutive weights
    order_law, best_order                     designs blind to the examples, with their bound
    balanced_order, repeated_order_variances  one order that knows the examples' gradients

Noise that depends on the weights

    random_curvature_moments                  examples that are quadratics of their own
    implicit_regulariser, epoch_drift         where reshuffling moves the mean

Other optimisers (`linear`)

    heavy_ball_system, with_weight_average, from_optax, stationary_covariance
    linear_window_variances, linear_window_spread   as window_variances and window_spread
    linear_scales                             λ_cross and τ_SGD of any of them
    stability_edge                            the curvature from which on its steps grow
    frozen_from_optax, precondition           Adam and RMSProp at frozen second moments

Units: lags and times in update steps; variances per unit noise variance σ_δg², η inside the
velocity as in Eq. 1. float64 unless JAX arrays say otherwise.
"""

from antisgd.theory.anharmonic import Anharmonic, anharmonic_variance
from antisgd.theory.balance import balanced_order, repeated_order_variances
from antisgd.theory.design import (
    average_response,
    averaged_variances,
    correlation_response,
    loss_fluctuation_slope,
)
from antisgd.theory.fluctuation import (
    FluctuationSplit,
    fluctuation_split,
    velocity_autocovariance,
)
from antisgd.theory.linear import (
    LinearOptimizer,
    from_optax,
    heavy_ball_system,
    stationary_covariance,
    with_weight_average,
)
from antisgd.theory.linear_scales import LinearScales, linear_scales, stability_edge
from antisgd.theory.linear_windows import linear_window_variances
from antisgd.theory.noise import (
    Noise,
    anti_pgd,
    autocorrelation,
    drop_last,
    flip_flop,
    independent_batches,
    partial_last,
    shuffle_once,
    spanning_batches,
    uncancelled,
    with_replacement,
    without_replacement,
)
from antisgd.theory.orders import OrderDesign, best_order, order_law
from antisgd.theory.phase import own_step_share, phase_variances
from antisgd.theory.preconditioned import (
    Frozen,
    Preconditioned,
    frozen_from_optax,
    precondition,
)
from antisgd.theory.random_curvature import (
    RandomCurvature,
    epoch_drift,
    implicit_regulariser,
    random_curvature_moments,
)
from antisgd.theory.regimes import (
    crossover_eigenvalue,
    crossover_function,
    flat_variances,
    loss_fluctuation,
    loss_fluctuation_reduction,
    max_correlation_time,
    steep_variances,
    trace_ratio,
)
from antisgd.theory.schedules import (
    Visited,
    decay_variances,
    relaxed_window_variances,
    visited_weights,
)
from antisgd.theory.self_consistent import (
    Averages,
    SelfConsistent,
    polynomial_averages,
    self_consistent,
)
from antisgd.theory.spread import WindowSpread, linear_window_spread, window_spread
from antisgd.theory.stationary import correlation_time, stationary_variances
from antisgd.theory.streams import from_indices
from antisgd.theory.variances import Variances
from antisgd.theory.visited import VisitedAverages, visited_averages
from antisgd.theory.windows import WindowVariances, window_variances

__all__ = [
    "Anharmonic",
    "Averages",
    "FluctuationSplit",
    "Frozen",
    "LinearOptimizer",
    "LinearScales",
    "Noise",
    "OrderDesign",
    "Preconditioned",
    "RandomCurvature",
    "SelfConsistent",
    "Variances",
    "Visited",
    "VisitedAverages",
    "WindowSpread",
    "WindowVariances",
    "anharmonic_variance",
    "anti_pgd",
    "autocorrelation",
    "average_response",
    "averaged_variances",
    "balanced_order",
    "best_order",
    "correlation_response",
    "correlation_time",
    "crossover_eigenvalue",
    "crossover_function",
    "decay_variances",
    "drop_last",
    "epoch_drift",
    "flat_variances",
    "flip_flop",
    "fluctuation_split",
    "from_indices",
    "from_optax",
    "frozen_from_optax",
    "heavy_ball_system",
    "linear_scales",
    "linear_window_spread",
    "linear_window_variances",
    "implicit_regulariser",
    "independent_batches",
    "loss_fluctuation",
    "loss_fluctuation_reduction",
    "loss_fluctuation_slope",
    "max_correlation_time",
    "order_law",
    "own_step_share",
    "partial_last",
    "phase_variances",
    "polynomial_averages",
    "precondition",
    "random_curvature_moments",
    "relaxed_window_variances",
    "repeated_order_variances",
    "self_consistent",
    "shuffle_once",
    "spanning_batches",
    "stability_edge",
    "stationary_covariance",
    "stationary_variances",
    "steep_variances",
    "trace_ratio",
    "uncancelled",
    "velocity_autocovariance",
    "visited_averages",
    "visited_weights",
    "window_spread",
    "window_variances",
    "with_replacement",
    "with_weight_average",
    "without_replacement",
]
