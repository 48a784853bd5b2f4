"""Values as pandas data frames, for whoever has pandas; lowbit itself does not need it."""

from typing import TYPE_CHECKING, Any

from lowbit.errors import EngineError
from lowbit.measurement.results import Comparison
from lowbit.quantization.planning.plan import Plan
from lowbit.reports.files import lines_of
from lowbit.reports.plans import scheme_name

if TYPE_CHECKING:
    import pandas


def comparison_frame(comparison: Comparison) -> "pandas.DataFrame":
    """A line per row, under its name, with the columns of results.csv."""
    names = [row.name for row in comparison.rows]
    return _pandas().DataFrame(lines_of(comparison), index=names).rename_axis("name")


def plan_frame(plan: Plan) -> "pandas.DataFrame":
    """A line per tensor, under its name."""
    lines = [
        {
            "shape": tensor.shape,
            "share": tensor.share,
            "layers": ", ".join(tensor.layers),
            "rule": tensor.rule,
            "asked": scheme_name(tensor.asked),
            "given": scheme_name(tensor.given),
            "bits": tensor.given.bits if tensor.given else 32,
            "downgraded": tensor.downgraded,
            "reason": tensor.reason,
        }
        for tensor in plan.tensors
    ]
    return _pandas().DataFrame(lines, index=[tensor.tensor for tensor in plan.tensors]).rename_axis("tensor")


def _pandas() -> Any:  # noqa: ANN401 - the module
    try:
        import pandas
    except ImportError as error:
        raise EngineError("the package 'pandas' is not installed.", remedy="Run: pip install pandas") from error
    return pandas
