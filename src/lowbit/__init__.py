"""Post-training quantization of trained networks, measured honestly on the files it writes.

    import lowbit

    model = lowbit.load("model.onnx")
    images = lowbit.open_images("photos/", model.preprocessing)
    lowbit.quantize(model, "int8", calibration=images).save("model-int8.onnx")

Names are imported when they are first used, so that `import lowbit` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> the module that defines it
PUBLIC = {
    "load": "lowbit.formats.opening",
    "save": "lowbit.graph.save",
    "prepare": "lowbit.formats.preparing",
    "Model": "lowbit.graph.model",
    "Preprocessing": "lowbit.graph.preprocessing",
    "cost": "lowbit.graph.cost",
    "Linear": "lowbit.schemes.linear",
    "Clusters": "lowbit.schemes.clusters",
    "open_session": "lowbit.engines",
    "open_data": "lowbit.data.opening",
    "open_images": "lowbit.data.images",
    "calibrate": "lowbit.calibration.statistics",
    "Statistics": "lowbit.calibration.statistics",
    "Recipe": "lowbit.quantization.planning.recipes",
    "parse_recipe": "lowbit.quantization.planning.recipes",
    "plan": "lowbit.quantization.planning.deciding",
    "Plan": "lowbit.quantization.planning.plan",
    "read_plan": "lowbit.quantization.planning.plan_file",
    "write_plan": "lowbit.quantization.planning.plan_file",
    "RuleLayer": "lowbit.quantization.planning.rules",
    "quantize": "lowbit.quantization.quantize",
    "Quantized": "lowbit.quantization.quantized",
    "FileForm": "lowbit.formats.file_form",
    "pack": "lowbit.quantization.pack",
    "Goal": "lowbit.quantization.rate.goal",
    "Packed": "lowbit.quantization.rate.packed",
    "search": "lowbit.searching.search",
    "SearchLimits": "lowbit.searching.limits",
    "SearchSettings": "lowbit.searching.limits",
    "SearchResult": "lowbit.searching.result",
    "measure": "lowbit.measurement.measure",
    "compare": "lowbit.measurement.compare",
    "diagnose": "lowbit.diagnosis.diagnosis",
    "Diagnosis": "lowbit.diagnosis.findings",
    "measure_peaks": "lowbit.measurement.peaks",
    "micro_report": "lowbit.formats.micro.report",
    "MicroReport": "lowbit.formats.micro.report",
    "write_c_array": "lowbit.formats.micro.source",
    "write_resolver": "lowbit.formats.micro.source",
    "forecast": "lowbit.measurement.forecast",
    "outlook": "lowbit.measurement.roofline",
    "Conditions": "lowbit.measurement.conditions",
    "CompareOptions": "lowbit.measurement.conditions",
    "Comparison": "lowbit.measurement.results",
    "Metric": "lowbit.measurement.results",
    "Task": "lowbit.measurement.tasks.task",
    "read_results": "lowbit.measurement.results_file",
    "LowbitError": "lowbit.errors",
}

if TYPE_CHECKING:
    from lowbit.calibration.statistics import Statistics, calibrate
    from lowbit.data.images import open_images
    from lowbit.data.opening import open_data
    from lowbit.diagnosis.diagnosis import diagnose
    from lowbit.diagnosis.findings import Diagnosis
    from lowbit.engines import open_session
    from lowbit.errors import LowbitError
    from lowbit.formats.file_form import FileForm
    from lowbit.formats.micro.report import MicroReport, micro_report
    from lowbit.formats.micro.source import write_c_array, write_resolver
    from lowbit.formats.opening import load
    from lowbit.formats.preparing import prepare
    from lowbit.graph.cost import cost
    from lowbit.graph.model import Model
    from lowbit.graph.preprocessing import Preprocessing
    from lowbit.graph.save import save
    from lowbit.measurement.compare import compare
    from lowbit.measurement.conditions import CompareOptions, Conditions
    from lowbit.measurement.forecast import forecast
    from lowbit.measurement.measure import measure
    from lowbit.measurement.peaks import measure_peaks
    from lowbit.measurement.results import Comparison, Metric
    from lowbit.measurement.results_file import read_results
    from lowbit.measurement.roofline import outlook
    from lowbit.measurement.tasks.task import Task
    from lowbit.quantization.pack import pack
    from lowbit.quantization.planning.deciding import plan
    from lowbit.quantization.planning.plan import Plan
    from lowbit.quantization.planning.plan_file import read_plan, write_plan
    from lowbit.quantization.planning.recipes import Recipe, parse_recipe
    from lowbit.quantization.planning.rules import RuleLayer
    from lowbit.quantization.quantize import quantize
    from lowbit.quantization.quantized import Quantized
    from lowbit.quantization.rate.goal import Goal
    from lowbit.quantization.rate.packed import Packed
    from lowbit.schemes.clusters import Clusters
    from lowbit.schemes.linear import Linear
    from lowbit.searching.limits import SearchLimits, SearchSettings
    from lowbit.searching.result import SearchResult
    from lowbit.searching.search import search

__all__ = [
    "Clusters",
    "CompareOptions",
    "Comparison",
    "Conditions",
    "Diagnosis",
    "FileForm",
    "Goal",
    "Linear",
    "LowbitError",
    "Metric",
    "MicroReport",
    "Model",
    "Packed",
    "Plan",
    "Preprocessing",
    "Quantized",
    "Recipe",
    "RuleLayer",
    "SearchLimits",
    "SearchResult",
    "SearchSettings",
    "Statistics",
    "Task",
    "calibrate",
    "compare",
    "cost",
    "diagnose",
    "forecast",
    "load",
    "measure",
    "measure_peaks",
    "micro_report",
    "open_data",
    "open_images",
    "open_session",
    "outlook",
    "pack",
    "parse_recipe",
    "plan",
    "prepare",
    "quantize",
    "read_plan",
    "read_results",
    "save",
    "search",
    "write_c_array",
    "write_plan",
    "write_resolver",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in PUBLIC:
        raise AttributeError(f"module 'lowbit' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
