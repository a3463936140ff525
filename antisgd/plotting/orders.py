"""The figure of designed data orders: what each leaves of the loss fluctuation."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from antisgd.plotting import style
from antisgd.plotting.style import PAGE, new_figure, styled

__all__ = ["orders_figure"]

# Below this share nothing but rounding is left: no place on a logarithmic axis.
_NOTHING = 1e-6
_QUANTITIES = (("weights", style.WEIGHT), ("mean of an epoch's weights", style.VERMILLION))


@styled
def orders_figure(
    systems: Mapping[str, Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]]],
) -> Figure:
    """Loss above the minimum under each order: measured with one standard error, and by theory.

    Args:
        systems: title of a panel → for each order its name, and [2] each, of the weights and of
            the mean of an epoch's weights over reshuffling's expected fluctuation: by theory,
            measured, its standard error.
    """
    figure, axes = new_figure(PAGE, 3.2, 1, len(systems), sharey=True)
    for axis, (title, orders) in zip(axes[0], systems.items(), strict=True):
        places = np.arange(len(orders))
        for i, (label, colour) in enumerate(_QUANTITIES):
            expected, measured, error = (
                np.array([one[part][i] for one in orders]) for part in (1, 2, 3)
            )
            expected, shown = (np.where(x > _NOTHING, x, np.nan) for x in (expected, measured))
            axis.errorbar(places, shown, error, fmt="o", color=colour, markersize=4, capsize=3,
                          label=f"{label}, measured")  # fmt: skip
            axis.plot(places, expected, "_", color=colour, markersize=18, markeredgewidth=1.2,
                      label=f"{label}, theory")  # fmt: skip
        axis.axhline(1, color=style.GREY, linewidth=0.6, linestyle=":")
        names = [one[0].replace(" ", "\n") for one in orders]
        axis.set_xticks(places, names)
        axis.set(yscale="log", title=title, xlim=(-0.5, len(orders) - 0.5))
    axes[0, 0].set_ylabel("loss fluctuation / reshuffling's by theory")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
