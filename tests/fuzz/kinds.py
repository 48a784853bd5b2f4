"""The kinds of files that strangers give, how they are changed, and the commands that read them."""

import contextlib
import dataclasses
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.mutants import npz_mutant, onnx_mutant, tflite_mutant
from fuzz.pictures import picture_mutant
from fuzz.texts import json_mutant, lines_mutant, program_mutant

# Of `litert_cases`, a small model each.
LITERT_CASES = (
    "ConvTranspose", "attention", "squeeze-excite", "Split", "MaxPool", "AveragePool", "ReduceMean", "Softmax", "Pad",
    "Resize", "Slice", "Gather", "Transpose", "DepthToSpace", "PRelu", "Pow",
)  # fmt: skip
# What exporters write beside a model.
SAID = (
    {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2], "do_normalize": True, "do_rescale": True,
     "rescale_factor": 0.00392, "size": {"shortest_edge": 18}, "crop_size": {"height": 16, "width": 16},
     "do_center_crop": True},
    {"pretrained_cfg": {"input_size": [3, 16, 16], "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "crop_pct": 0.9}},
    {"imageSize": 16, "labels": ["cat", "dog"]},
    {"author": "Ultralytics", "task": "detect", "imgsz": "[16, 16]", "names": "{0: 'cat'}", "stride": "32"},
)  # fmt: skip
SHAPES = (("n", 3, 16, 16), (1, 16, 16, 3), ("n", 1 << 31, 16, 16), ("n", None, "h", "w"))

MODELS = (
    "inspect FILE --coded",
    "plan FILE -r int8",
    "plan FILE -r cluster3",
    "quantize FILE -r linear4 -o OUT.onnx",
    "quantize FILE -r cluster2 -o OUT.onnx",
    "quantize FILE -r float16 -o OUT.onnx",
    "quantize FILE -r dynamic8 -o OUT.onnx",
    "quantize FILE -r linear8 -o OUT.tflite",
    "quantize FILE -r int8 --calibration DATA --effort fast -o OUT.onnx",
    "pack FILE -o OUT.lowbit",
)
IMPORTED = (
    "plan FILE -r int8",
    "prepare FILE --mean 0.5 --std 0.25 -o OUT.onnx",
    "quantize FILE -r linear4 -o OUT.onnx",
    "quantize FILE -r float16 -o OUT.onnx",
    "quantize FILE -r linear8 -o OUT.tflite",
    "pack FILE -o OUT.lowbit",
)
MEASURED = "measure FILE --data DATA --runs 0"  # which starts a process for each file


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        file: its name in the folder that commands are given; `FILE` in their lines.
        mutate: makes a changed one of a good one.
        commands: lines of words; capitals are files that stand ready, or a call of the library: see `attempt`.
    """

    file: str
    mutate: Callable[[Any, random.Random], bytes]
    commands: tuple[str, ...]


KINDS = {
    "onnx": Kind("mutant.onnx", onnx_mutant, 4 * MODELS + (MEASURED,)),
    "npz": Kind("mutant.npz", npz_mutant, ("quantize MODEL -r int8 --calibration FILE --effort fast -o OUT.onnx",)),
    "tflite": Kind("mutant.tflite", tflite_mutant, 40 * ("LEDGER FILE", "export FILE --json") + (MEASURED,)),
    "float tflite": Kind("float.tflite", tflite_mutant, IMPORTED),
    "program": Kind("program.pt2", program_mutant, ("PROGRAM FILE",)),
    "beside": Kind("beside/said.json", json_mutant, ("BESIDE FILE",)),
    "picture": Kind("pictures/a.png", picture_mutant, ("IMAGES PICTURES",)),
    "mask": Kind("labels/a.png", picture_mutant, ("LABELS PICTURES LABELFOLDER",)),
    "boxes": Kind("labels/a.txt", lines_mutant, ("LABELS PICTURES LABELFOLDER",)),
    "coco": Kind("coco.json", json_mutant, ("LABELS PICTURES FILE",)),
    "list": Kind("list.csv", lines_mutant, ("IMAGES FILE",)),
    "plan": Kind(
        "plan.json",
        json_mutant,
        (
            "plan MODEL --plan FILE",
            "quantize MODEL --plan FILE --calibration DATA --effort fast -o OUT.onnx",
            "quantize MODEL --plan FILE --calibration DATA --effort fast -o OUT.tflite",
        ),
    ),
    "results": Kind("results.json", json_mutant, ("RESULTS FILE",)),
}


@dataclass(frozen=True)
class Seeds:
    """Good files, by the kind of their mutants; and what goes with them."""

    files: dict[str, list[Any]]
    model: Path
    data: Path


def seeds(folder: Path) -> Seeds:
    """Small networks with layers of every sort, one quantized, one of LiteRT; inputs for the first; all the rest."""
    import numpy as np
    import onnx

    import lowbit
    import networks
    from speech import speech_network
    from task_networks import sequences, tokens

    first = networks.residual_network()
    model, data = folder / "model.onnx", folder / "data.npz"
    onnx.save(first, model)
    np.savez(data, x=networks.inputs(3))
    loaded = lowbit.load(model)
    quantized = lowbit.quantize(loaded, "int8", calibration=networks.inputs(3), effort="fast")
    written = quantized.save(folder / "quantized.onnx").read_bytes()
    litert = quantized.save(folder / "quantized.tflite").read_bytes()
    nets = [first, networks.depthwise_network(), speech_network(), sequences().model, tokens().model]
    nets.append(onnx.load_model_from_string(written))
    onnx.helper.set_model_props(nets[0], {"author": "Ultralytics", "task": "classify", "imgsz": "[16, 16]"})
    plans = []
    for recipe, rules in (("int8", ["depthwise=linear8"]), ("linear4", ["last=cluster3"])):
        lowbit.write_plan(lowbit.plan(loaded, recipe, rules=rules), loaded, folder / "plan.json")
        plans.append((folder / "plan.json").read_bytes())
    files = {"onnx": nets, "npz": [data.read_bytes()], "tflite": [litert], "plan": plans}
    return Seeds(files | _pictures() | _texts() | _foreign(), model, data)


def _foreign() -> dict[str, list[bytes]]:
    """Models of LiteRT with many operators; and what torch and Keras write, as far as lowbit itself reads it."""
    import numpy as np

    import litert_cases
    import lowbit
    import networks
    from lowbit.formats.litert.write import to_litert
    from lowbit.formats.quantized_graph import QuantizedGraph

    random = np.random.default_rng(0)
    loaded = [lowbit.load(networks.residual_network()), *(litert_cases.CASES[name](random) for name in LITERT_CASES)]
    size = {"as_expr": {"expr_str": "Symbol('s77', positive=True, integer=True)", "hint": {"as_int": 2}}}
    node = {
        "target": "torch.ops.aten.conv2d.default",
        "inputs": [{"name": "input", "arg": {"as_tensor": {"name": "x"}}, "kind": 1}],
        "outputs": [{"as_tensor": {"name": "y"}}],
        "metadata": {"stack_trace": "net.py"},
    }
    tensors = {"x": {"dtype": 7, "sizes": [size, {"as_int": 3}], "device": {"type": "cpu", "index": None}}}
    graph = {"graph_module": {"graph": {"nodes": [node], "tensor_values": tensors}}, "opset_version": {"aten": 10}}
    weights = {"config": {"w": {"path_name": "weight_0", "is_param": True, "use_pickle": False}}}
    keras = {"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {"units": 4}}]}}
    archives = [
        {
            "m/models/model.json": graph,
            "m/data/weights/model_weights_config.json": weights,
            "m/data/weights/weight_0": {},
        },
        {"config.json": keras, "metadata.json": {"keras_version": "3.12.0"}, "model.weights.h5": {}},
        {"m/constants.pkl": {}, "m/code/__torch__.py": {}, "m/data/0": {}},
    ]
    return {
        "float tflite": [to_litert(QuantizedGraph(each)) for each in loaded],
        "program": list(map(_archive, archives)),
    }


def _archive(members: dict[str, Any]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), json.dumps(content))  # without the time of day
    return made.getvalue()


def _pictures() -> dict[str, list[bytes]]:
    """Of every format and mode that is read, 24 by 16 pixels."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 4), np.uint8)
    picture = Image.fromarray(pixels[:, :, :3])
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (picture, "PNG", {}),
        (Image.fromarray(pixels), "PNG", {}),
        (picture.quantize(17), "PNG", {"transparency": 3}),
        (Image.fromarray(pixels[:, :, :2].copy().view("<u2")[:, :, 0]), "PNG", {}),
        (picture.convert("1"), "PNG", {}),
        (picture, "JPEG", {"exif": _turned()}),
        (picture.convert("CMYK"), "JPEG", {}),
        (picture.convert("L"), "JPEG", {"progressive": True}),
        (picture, "WEBP", {}),
        (Image.fromarray(pixels), "WEBP", {"lossless": True}),
        (picture, "BMP", {}),
        (picture.quantize(9), "BMP", {}),
    ]
    return {"picture": [_saved(*kind) for kind in kinds], "mask": [_saved(*kinds[2]), _saved(*kinds[4])]}


def _saved(picture: Any, form: str, options: dict[str, Any]) -> bytes:
    made = io.BytesIO()
    picture.save(made, form, **options)
    return made.getvalue()


def _turned() -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def _texts() -> dict[str, list[bytes]]:
    from comparison_sample import sample_comparison

    results = dataclasses.replace(sample_comparison(), rows=sample_comparison().rows[:2])
    coco = {
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "images": [{"id": at, "file_name": f"{name}.png", "width": 24, "height": 16} for at, name in enumerate("ab")],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 7, "bbox": [1, 2, 3, 4.5], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 3, "bbox": [0, 0, 24, 16], "area": 384},
        ],
    }  # fmt: skip
    boxes = b"0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.2 0.1 0.2 0.3\n"
    lists = b"image,label\npictures/a.png,0\npictures/b.png,1\n", b"pictures/b.png,rock\npictures/b.png,paper\n"
    return {
        "coco": [json.dumps(coco).encode()],
        "boxes": [boxes],
        "list": list(lists),
        "results": [results.to_json().encode()],
        "beside": [json.dumps(each).encode() for each in SAID],
    }


def prepare(folder: Path, made: Seeds) -> dict[str, str]:
    """Lay out what commands read besides the file; which path each word of their lines stands for."""
    for name in ("pictures", "labels", "beside"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "pictures" / "b.png").write_bytes(made.files["picture"][0])
    (folder / "pictures" / "a.png").write_bytes(made.files["picture"][0])
    (folder / "labels" / "b.png").write_bytes(made.files["mask"][0])
    words = {"MODEL": made.model, "DATA": made.data, "PICTURES": folder / "pictures", "LABELFOLDER": folder / "labels"}
    words |= {f"OUT.{ending}": folder / f"out.{ending}" for ending in ("onnx", "tflite", "lowbit")}
    return {word: str(path) for word, path in words.items()}


def attempt(line: str, *, quiet: bool = True) -> None:
    """Run a command in this process; silent if it ends as it should, else the exception.

    Args:
        line: of words. Those in capitals are calls of the library, which commands make too, only without the work that
            follows.
        quiet: whether it may refuse in a sentence.
    """
    from lowbit.errors import LowbitError

    words = line.split()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            if words[0] in CALLS:
                CALLS[words[0]](*words[1:])
            else:
                from lowbit.cli import app

                app(words, standalone_mode=False)
        except LowbitError as error:
            if not quiet:
                raise
            if not error.what.strip() or "\n" in str(error):
                raise ValueError(f"no sentence: {error}") from error


def _ledger(path: str) -> None:
    from lowbit.formats.litert.ledger import read_litert_ledger

    read_litert_ledger(path)


def _images(path: str) -> Any:
    from lowbit.data.images import open_images
    from lowbit.graph.preprocessing import Preprocessing

    images = open_images(path, Preprocessing(8, 8))
    for _ in images.batches(2):
        pass
    images.fingerprint()
    return images


def _labels(pictures: str, path: str) -> None:
    from lowbit.data.images import open_images
    from lowbit.data.label_files import read_labels
    from lowbit.graph.preprocessing import Preprocessing

    read_labels(Path(path), open_images(pictures, Preprocessing(8, 8)).places, pictures)


def _results(path: str) -> None:
    import lowbit

    lowbit.read_results(path).to_json()


def _program(path: str) -> None:
    """What lowbit itself reads of an archive before it asks torch or Keras."""
    from lowbit.importing import keras, torch_files

    archive = Path(path).rename(Path(path).with_suffix(".keras"))  # the reader for Keras goes by the name
    keras._check_archive(archive)
    names = torch_files._names(archive)
    if not names or any("/models/" in name for name in names):
        torch_files._check_program(archive)


def _beside(path: str) -> None:
    from lowbit.graph.exporters import EXPORTERS, stated_preprocessing

    place = Path(path)
    for name in {exporter.file for exporter in EXPORTERS} - {""}:
        shutil.copyfile(place, place.with_name(name))
    try:
        entries = json.loads(place.read_bytes())
    except (ValueError, RecursionError):
        entries = {}
    for shape in SHAPES:
        stated_preprocessing(entries if isinstance(entries, dict) else {}, place.parent, shape)


CALLS = {
    "PROGRAM": _program,
    "BESIDE": _beside,
    "LEDGER": _ledger,
    "IMAGES": _images,
    "LABELS": _labels,
    "RESULTS": _results,
}
