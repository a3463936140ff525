"""Arrays → figures in the paper's arrangement, one function a panel. The only use of matplotlib.

The figures, by their number in the paper
    noise_autocorrelation     Fig. 1 and 6
    variances_figure          Fig. 2 and 7
    eigenvalue_density        Fig. 5, the eigenvalues found
    spectrum_count            Fig. 5, all of them by their density
    tracked_eigenvalues       the leading ones along training
    training_curves           Fig. 8
    variances_by_setting      Fig. 9
    scales_figure             Fig. 10
    discarded_directions      Fig. 11
    leading_variances         Fig. 13
    noise_against_curvature   Fig. 14
    accuracy_comparison       Sec. 7
    binned_agreement          measured over theory in bins of λ/λ_cross
    audit_page                a recorded run and what it says of itself

`label_source` names a figure's data in a line of its own. The panels draw into axes that are
yours. Nothing here writes files.
"""

from antisgd.plotting.agreement import Bins, binned_agreement, bins_panel
from antisgd.plotting.audits import AuditArrays, audit_page
from antisgd.plotting.backend import matplotlib as matplotlib
from antisgd.plotting.figures import (
    accuracy_comparison,
    discarded_directions,
    leading_variances,
    noise_against_curvature,
    noise_autocorrelation,
    training_curves,
    variances_figure,
)
from antisgd.plotting.hyperparameters import scale_panel, scales_figure, variances_by_setting
from antisgd.plotting.panels import (
    MOSTLY_DRIFT,
    accuracy_panel,
    autocorrelation_panel,
    correlation_time_panel,
    curve_panel,
    discarded_accuracy_panel,
    eigenvalue_panel,
    leading_variances_panel,
    noise_panel,
    projection_panel,
    variances_panel,
)
from antisgd.plotting.spectra import (
    count_panel,
    eigenvalue_density,
    spectrum_count,
    spectrum_panel,
    tracked_eigenvalues,
)
from antisgd.plotting.style import label_source

__all__ = [
    "MOSTLY_DRIFT",
    "AuditArrays",
    "Bins",
    "accuracy_comparison",
    "accuracy_panel",
    "audit_page",
    "autocorrelation_panel",
    "binned_agreement",
    "bins_panel",
    "correlation_time_panel",
    "count_panel",
    "curve_panel",
    "discarded_accuracy_panel",
    "discarded_directions",
    "eigenvalue_density",
    "eigenvalue_panel",
    "label_source",
    "leading_variances",
    "leading_variances_panel",
    "noise_against_curvature",
    "noise_autocorrelation",
    "noise_panel",
    "projection_panel",
    "scale_panel",
    "scales_figure",
    "spectrum_count",
    "spectrum_panel",
    "tracked_eigenvalues",
    "training_curves",
    "variances_by_setting",
    "variances_figure",
    "variances_panel",
]
