"""Post-training quantization of trained networks, measured honestly on the files it writes.

    import lowbit

    model = lowbit.load("model.onnx")
    images = lowbit.open_images("photos/", model.preprocessing)
    lowbit.quantize(model, "int8", calibration=images).save("model-int8.onnx")

Names are imported when they are first used, so that `import lowbit` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Public name -> the module that defines it. Type checkers read the same names from the imports below; a test holds the
# two together.
PUBLIC = {
    "load": "lowbit.formats.opening",
    "save": "lowbit.formats.shortcuts",
    "Model": "lowbit.graph.model",
    "Preprocessing": "lowbit.graph.preprocessing",
    "cost": "lowbit.formats.shortcuts",
    "Linear": "lowbit.schemes.linear",
    "Clusters": "lowbit.schemes.clusters",
    "open_session": "lowbit.formats.running",
    "Session": "lowbit.formats.running",
    "open_data": "lowbit.data.opening",
    "open_images": "lowbit.data.images",
    "Dataset": "lowbit.data.dataset",
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
    "Progress": "lowbit.progress",
    "SILENT": "lowbit.progress",
    "LowbitError": "lowbit.errors",
    "ModelError": "lowbit.errors",
    "DataError": "lowbit.errors",
    "SchemeError": "lowbit.errors",
    "ArchiveError": "lowbit.errors",
    "EngineError": "lowbit.errors",
    "OutputError": "lowbit.errors",
    "DowngradeError": "lowbit.errors",
}

if TYPE_CHECKING:
    from lowbit.calibration.statistics import Statistics as Statistics, calibrate as calibrate
    from lowbit.data.dataset import Dataset as Dataset
    from lowbit.data.images import open_images as open_images
    from lowbit.data.opening import open_data as open_data
    from lowbit.diagnosis.diagnosis import diagnose as diagnose
    from lowbit.diagnosis.findings import Diagnosis as Diagnosis
    from lowbit.errors import (
        ArchiveError as ArchiveError,
        DataError as DataError,
        DowngradeError as DowngradeError,
        EngineError as EngineError,
        LowbitError as LowbitError,
        ModelError as ModelError,
        OutputError as OutputError,
        SchemeError as SchemeError,
    )
    from lowbit.formats.file_form import FileForm as FileForm
    from lowbit.formats.micro.report import MicroReport as MicroReport, micro_report as micro_report
    from lowbit.formats.micro.source import write_c_array as write_c_array, write_resolver as write_resolver
    from lowbit.formats.opening import load as load
    from lowbit.formats.running import Session as Session, open_session as open_session
    from lowbit.formats.shortcuts import cost as cost, save as save
    from lowbit.graph.model import Model as Model
    from lowbit.graph.preprocessing import Preprocessing as Preprocessing
    from lowbit.measurement.compare import compare as compare
    from lowbit.measurement.conditions import CompareOptions as CompareOptions, Conditions as Conditions
    from lowbit.measurement.forecast import forecast as forecast
    from lowbit.measurement.measure import measure as measure
    from lowbit.measurement.peaks import measure_peaks as measure_peaks
    from lowbit.measurement.results import Comparison as Comparison, Metric as Metric
    from lowbit.measurement.results_file import read_results as read_results
    from lowbit.measurement.roofline import outlook as outlook
    from lowbit.measurement.tasks.task import Task as Task
    from lowbit.progress import SILENT as SILENT, Progress as Progress
    from lowbit.quantization.pack import pack as pack
    from lowbit.quantization.planning.deciding import plan as plan
    from lowbit.quantization.planning.plan import Plan as Plan
    from lowbit.quantization.planning.plan_file import read_plan as read_plan, write_plan as write_plan
    from lowbit.quantization.planning.recipes import Recipe as Recipe, parse_recipe as parse_recipe
    from lowbit.quantization.planning.rules import RuleLayer as RuleLayer
    from lowbit.quantization.quantize import quantize as quantize
    from lowbit.quantization.quantized import Quantized as Quantized
    from lowbit.quantization.rate.goal import Goal as Goal
    from lowbit.quantization.rate.packed import Packed as Packed
    from lowbit.schemes.clusters import Clusters as Clusters
    from lowbit.schemes.linear import Linear as Linear
    from lowbit.searching.limits import SearchLimits as SearchLimits, SearchSettings as SearchSettings
    from lowbit.searching.result import SearchResult as SearchResult
    from lowbit.searching.search import search as search

else:  # a type checker that saw this would take any name for one

    def __getattr__(name: str) -> object:
        if name not in PUBLIC:
            raise AttributeError(f"module 'lowbit' has no attribute {name!r}")
        return getattr(importlib.import_module(PUBLIC[name]), name)


__all__ = sorted(PUBLIC)


def __dir__() -> list[str]:
    return ["__version__", *__all__]
