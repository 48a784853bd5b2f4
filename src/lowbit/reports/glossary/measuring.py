"""Words for what is measured and diagnosed, and the headings of tables."""

MEASURING = {
    "answer": "one output for all samples",
    "accuracy": (
        "share of images classified as labeled, with Wilson's 95 % interval: where the accuracy on other images of the "
        "same kind would lie"
    ),
    "agreement": (
        "share of images classified as float classifies them, right or wrong; stands in for accuracy without labels"
    ),
    "bound": "of a drop: what is lost at most or at least on other samples, with a confidence",
    "calibration images, calibration data": (
        "samples that ranges, codes and biases are fitted to; labels are never read"
    ),
    "certificate": (
        "whether a drop is within a limit, with a confidence: it holds, it does not, or these samples cannot tell "
        "(`Certificate`). It is corrected for every candidate that was looked at on the same samples"
    ),
    "conditions": "what all rows of a table have in common: engines, threads, batch, runs (`Conditions`)",
    "calibration error, ECE": (
        "of confidence, expected (ECE): mean gap between confidence and accuracy; has nothing to do with calibration "
        "images"
    ),
    "confidence": "of an answer: its probability; of a bound or a certificate: how often it holds",
    "confusion": "images of one class that a file takes for another",
    "data set": (
        "samples with or without labels that can be read as often as needed: `Images` for one input, `Samples` for any"
    ),
    "drop": "points of accuracy lost against float",
    "engine": "a runtime that runs a file: ONNX Runtime, OpenVINO, LiteRT",
    "evaluation images, evaluation data": "samples that files are measured on; never calibration images",
    "expected": (
        "of speed: what the roofline forecasts, or how many times faster than float a file of the same plan with "
        "made-up ranges ran, before anything was quantized"
    ),
    "feed": "an input's value that is the same for every sample",
    "fingerprint": "hash of a data set",
    "flip": (
        "a prediction that differs from float's, whether float was right or wrong. Two files of the same accuracy may "
        "flip very different numbers of images"
    ),
    "graph of the network": (
        "on the page: inputs, layers, joins and outputs, with what feeds what past all other nodes"
    ),
    "item": "arrays for all inputs as the user gave them: one sample, or a row for each of several",
    "join": "in the graph of the network: a node without weights in which branches meet",
    "kernel": "of a runtime: what computes one node, or several that it fused; its profiler times it",
    "KL": (
        "mean Kullback-Leibler divergence of a file's class probabilities from float's, in nats. 0 says that nothing "
        "changed, 0.01 that hardly any prediction did; above 0.1 many do. All images count, not only those that flip, "
        "so it tells files apart whose accuracy is the same"
    ),
    "latency": (
        "median time of one inference, with the model loaded already. Files take turns while they are timed, so that "
        "what disturbs the machine disturbs all of them"
    ),
    "look": "a candidate whose drop was looked at on the same samples, for which a certificate must be corrected",
    "lost, gained": "of images: only the float model is right, only the file is",
    "metric": "a figure of a task, with the direction in which it is better",
    "peaks": "what a processor can do: measured on microkernels",
    "peer": "another quantization tool, in benchmarks",
    "point": "one percent of the images",
    "reference": "the first file of a comparison, to which the others are compared",
    "roofline": "a forecast of a layer's time from its arithmetic and its bytes",
    "relative error": "of an output: its squared error over the variance of each channel, in the mean over channels",
    "row of a comparison": "one file on one engine",
    "run": "one execution of a model: of one sample, a batch, or as many samples as it fixes",
    "sample": "what a model answers to once: an array for each input",
    "spread": (
        "of a drop that is no count of images: its standard error, by what it is without each of twenty groups of "
        "samples"
    ),
    "SQNR": (
        "signal-to-quantization-noise ratio: weights, or an output, over their error, in decibels. 6 dB more is half "
        "the error, which one more bit brings; 8-bit weights have about 40 dB, 4-bit ones about 20"
    ),
    "verdict": (
        "a word for what a file loses on other samples of this kind, with 95 % confidence. `same`: at most one point "
        "(or one percent, where the figure is no percentage). `worse`: something, perhaps more than that. `better`: it "
        "gains something. `cannot tell`: these samples are too few to say"
    ),
    "target": "what a sample should give, where that is no class number: an array or boxes",
    "task": "what a network is for, by which files are judged: classification, detection and others",
}

HEADINGS = {
    "added": "of `diagnose --against`: what a layer itself adds to the error, on the input that it was given",
    "archive (size)": "size of the same file, entropy-coded by `lowbit pack`",
    "at most": "what the file loses at most on other samples of this kind, in points, with 95 % confidence",
    "before, after": "of a step: distance from float without and with it, on calibration images that judge",
    "bits": "bits per weight of a layer, with its scales and code books",
    "bytes": "of a layer: those of its weights, with scales and code books; else of the whole file",
    "CER": (
        "character error rate: edits from what greedy CTC decoding says to the labels, over the length of the labels"
    ),
    "clip": "of `diagnose`: percent of a layer's input values that lie beyond its range, and are clipped",
    "compared with": "the tensor of the other file that stands for this layer's output",
    "computes in": "`integer`, `float`, half precision, or `absorbed`",
    "cosine": "mean cosine between a file's vectors and the float model's; 1 is the same direction",
    "dead": "of `diagnose`: output channels that are zero for all samples",
    "distance": "KL for a classifier, else relative error of all outputs",
    "error": "squared error of the output that is farthest from float's, over the variance of each of its channels",
    "exact": "share of sequences without an error; of weights or outputs: without any difference from float",
    "far": (
        "of `diagnose`: the reach of the farthest output channel over that of the median one. Where it is large, one "
        "channel takes the levels of all others"
    ),
    "faster": "float's time over this file's time, the median of the ratios within rounds: above 1 the file is faster",
    "gain": "of `inspect --speed`: how many times faster integers should be than float",
    "in": "of `inspect --speed`: the arithmetic that a layer would compute in, float or integers",
    "in the file, as float, in an archive": (
        "bytes that a kind of number takes in the file, if all of it were float32, and entropy-coded"
    ),
    "input": "of `diagnose`: what the codes of a layer's input do to its output, squared, over the output's power",
    "limit": (
        "of `inspect --speed`: what takes the most time of a layer: arithmetic, handling outputs, memory traffic, or "
        "starting the operator"
    ),
    "load, peak": "memory that a fresh process gains by loading the model, and at most up to the end of one inference",
    "loss": "cross-entropy of the labels, in nats; smaller is better",
    "lost": (
        "of a search: points of accuracy, or percent of changed predictions without labels, on the samples that chose"
    ),
    "mAP, mAP@0.5": (
        "mean average precision of boxes: over overlaps from 0.5 to 0.95, or of those that overlap by half "
        "(`mAP@0.5`), by pycocotools"
    ),
    "measure": "what distances are: KL for a classifier, else relative error of all outputs",
    "mIoU": "intersection over union of labeled and predicted pixels, in the mean over classes",
    "MSE": "mean squared error: of all weights, or of the outputs of a regression",
    "note": "the number of a sentence below the table; `!` marks a downgrade, `*` an adaptation",
    "numbers": "how many values of a kind there are",
    "op": "operator of a node, such as Conv",
    "outcome": "of a step: whether it brought the network closer to float and was kept",
    "output, weight (shape)": "sizes of a layer's output for one sample, and of its weight",
    "output SQNR": "signal over error of the output that is farthest from float's, in decibels",
    "p": (
        "McNemar's exact test: how likely chance alone changes the accuracy this much. Below 0.05 the difference is "
        "hardly chance; above, it may be"
    ),
    "perplexity": "exp of the mean loss in nats per token; smaller is better, 1 is perfect",
    "pixels": "share of pixels classified as labeled",
    "R²": "share of the targets' variance that is explained: 1 is perfect, 0 is what the mean alone would explain",
    "ready": "time that a fresh process takes to load the model and unpack its weights, once",
    "recall@1, recall@5": "share of samples that have one of the same identity nearest, or among the five nearest",
    "same": "of integer outputs: the share that is the same as float's, of the output that agrees least",
    "seconds": "what a step took",
    "size": "bytes of the whole file; 1 MB is 10^6 bytes",
    "smaller": "size of the float file over the size of this file",
    "tensor, node, shape": "a tensor or operator of the graph by its name, and its sizes",
    "tokens": "share of positions where the most probable token is the labeled one",
    "top-5": "share of images whose class is among the five with the highest scores",
    "type, values": "of a weight: the type that it has in the file, and its least and greatest value",
    "weights (smaller)": "bytes of the float weights over the bytes of their codes, scales and code books",
    "weights (diagnose)": "what the codes of a layer's weights do to its output, squared, over the output's power",
    "weights lost": "of `diagnose --against`: what a layer's output loses by the other file's weights alone",
    "without": "of `diagnose`: a file in which all layers but this one are quantized",
    "µs, float µs": "microseconds that a layer should take in integers where that is faster or asked for, and in float",
    "32/n": "how many times smaller the weights would be if n bits for each were all that is stored",
    "95 % interval": "Wilson's interval: where the accuracy on other images of the same kind would lie",
}

DIAGNOSING = {
    "alone": "of a layer: a file in which no other one is quantized",
    "apart, to part": "of two files: where the outputs of a layer begin to differ",
    "broken": "of weights: what a file holds is not the float ones, by far more than its codes explain",
    "cause": "what kind of thing is wrong, such as an outlier channel; a row of `CAUSES` for layers",
    "cure": "options or rules that make up for a cause, ready to paste",
    "damage": "distance of the network's answers from float's that the codes of one layer make",
    "finding": "one thing that is wrong: cause, place, words, cure, and the gain of that",
    "gain (of a cure)": "what the file as written comes to with it, beside the file without",
    "information": "mutual information of sample and class: how far a classifier's answers tell samples apart, in nats",
    "outlier channel": "a channel that reaches many times as far as the others, and so takes their levels",
    "planted": "of a fault: put there by a test, to be found",
}

STUDY = {
    "builtin": (
        "the study's network and hands rendered by lowbit: `builtin:train`, `builtin:test`, `builtin:calibration`"
    ),
    "rps128": "the study's network on the original Rock-Paper-Scissors images, 128x128",
    "study": "the comparison that lowbit began as: seven recipes on one network (`make demo`)",
    "study's network": "MobileNetV2 with three classes",
}
