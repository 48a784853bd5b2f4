"""Words for what quantizing decides and does, for searches and archives."""

DECIDING = {
    "adaptation": (
        "other bits than the recipe says, by a rule that the plan states: fewer for the target's sake, more in small "
        "layers; no downgrade"
    ),
    "downgrade": (
        "something that was asked for and is not given, such as a weight that stays float because codes would take "
        "more bytes. It is named with its reason; `--strict` makes it an error"
    ),
    "effort": "how long the search for codes may take: `fast`, `balanced`, `best`",
    "device": "a processor that is programmed through a compiler with rules of its own, such as an NPU",
    "dynamic": "of a layer: its inputs are quantized at each inference, by their own range; the `dynamic` recipe",
    "full integer": (
        "weights and activations are integers, and so is the arithmetic; the `int`, `icluster` and `a16w` recipes. "
        "Such files need calibration images and can be faster than float, where the processor multiplies integers fast"
    ),
    "island": "layers that compute in integers among others that do not, or the other way round",
    "kind": (
        "of activations: their bits, whether signed, whether with a zero point, whether with any scale or powers of two"
    ),
    "plan": "what each tensor and node will get, and why, before anything is done",
    "recipe": (
        "how a whole model is treated, by name: `int8`, `linear4`, `cluster2`. `lowbit recipes` lists all of them, "
        "with the bits that they take"
    ),
    "rule": "another recipe for some layers: `PATTERN=RECIPE`",
    "step": (
        "what is tried between plain codes and the file: exact input, equalization, narrower ranges, bias correction, "
        "rounding"
    ),
    "target": "the processor that an integer file is made for",
    "weight-only": (
        "weights are codes, arithmetic stays float; the `linear`, `block` and `cluster` recipes. Such files are "
        "smaller, need no calibration images, and run about as fast as float"
    ),
}

CHOOSING_CODES = {
    "bias correction": "giving each output channel the mean that it has in the float network",
    "closest vector": "the levels that minimize a row's objective; solved exactly for few columns",
    "coordinate descent": "changing one code at a time, as long as that lowers the objective",
    "damping": "what is added to the diagonal of H so that it can be factored, relative to each column's own power",
    "gain": (
        "what an output channel of re-fitted weights is multiplied by, so that it varies as much as in the float "
        "network"
    ),
    "GPTQ": "rounding column by column, passing each error on to the columns that follow",
    "H": "the second moments of a layer's inputs, [groups, columns, columns]",
    "moments": "mean and second moment (H) of a layer's inputs, and their cross moment with its wanted outputs",
    "objective": "tr((W - Q) H (W - Q)^T), the squared error of a layer's outputs",
    "proven": "of a row: its codes are the optimum for its grid",
    "re-fit": "compute by least squares the weights that best give the wanted outputs from quantized inputs",
    "ridge": (
        "what is added to the diagonal of H for what calibration images say nothing of, relative to what a column "
        "contributes; found by cross-validation"
    ),
    "target weights": 'the re-fitted weights, to which codes should come close; never "target" alone in messages',
    "wanted output": "what the float network gives at a layer's output",
}

PASSES = {
    "apart": "of images: taken out of the calibration images, to judge",
    "candidate": "a quantized network that a step made and that is not kept yet",
    "channel group": "channels of a network that must be scaled by the same factor (equalization)",
    "cut": "a position in the network, and the tensors from before it that nodes behind it read",
    "equalization": "rescaling channels so that they are easier to round, without changing what the network computes",
    "frontier": "how far a network has run over the calibration images: the tensors kept at a cut",
    "fitted": "of a distance: on the images that a candidate was fitted to",
    "interval bounds": "bounds of an activation that hold for all images, by interval arithmetic",
    "judge": "decide by images that nothing was fitted to whether a candidate is kept",
    "judging images, images that judge": "calibration images set apart for that; of few images all fit and all judge",
    "layerwise pass": "solving layer by layer, each on what the quantized layers before it give",
    "noise": "what rounding is forecast to do to the outputs (equalization)",
    "range rule": (
        "how the interval of an activation is chosen from what calibration images showed: `extremes`, `output`, "
        "`minmax`; `auto` tries the first two"
    ),
    "ranges": "intervals of activations",
    "reach": "the largest finite magnitude of an activation over calibration samples",
    "sensitivity": "what one unit of a layer's output error costs at the network's output",
    "statistics": "all that calibration learned of the activations",
}

SEARCHING = {
    "candidate": "of a search: a plan that became a file, and was measured",
    "choice": "a recipe for each weight; an option is one recipe for one weight, with what it takes and costs",
    "damage": "what a recipe in a layer is forecast to cost the network: nats of KL, or relative error",
    "extra bytes": "what measured files take more than was forecast",
    "front": "candidates that no other one beats in size, latency and distance together",
    "knapsack": "choosing one option for each layer, so that a total is least and limits are kept",
    "menu": "all options of all layers, for one kind of activations",
    "round": "two candidates that are made side by side",
    "tilt": "how far the forecast cost of each layer leans towards one that all layers share",
}

ARCHIVES = {
    "alphabet": "the number of symbols of a tensor's codes",
    "archive": "a `.lowbit` file: an ONNX file, entropy-coded",
    "beam width": "how many partial solutions of a row a search keeps",
    "content": "the file that an archive holds",
    "context": "what the coder knows of a code before it sees it; each has a table of frequencies",
    "distortion": "the objective of a layer, in rate-distortion optimization",
    "entropy": (
        "empirical entropy of codes (order 0), without any table or context: the bits per weight that a coder needs "
        "that knows only how often each code occurs"
    ),
    "goal": "what an archive is searched for: a size, bits per weight, or a drop",
    "Lagrange multiplier, multiplier": "the output error that one bit is worth; one for the whole network",
    "pack": "put an ONNX file into an archive; with a goal, quantize it first. Of codes: into bits and bytes",
    "payload": "the bytes of codes or numbers that are cut out of the content",
    "plane": (
        "of codes: bits of the same rank, stored together (bit plane); of numbers: their first, second, ... bytes; of "
        "a kernel: one position"
    ),
    "rate": "bits",
    "skeleton": "what the payloads leave of the content",
    "step size": "the distance of two levels of an archive's codes",
    "symbol": "a code as the coder sees it, from 0 on",
    "trial": "one pass of the search, whose archive is written and weighed",
}
