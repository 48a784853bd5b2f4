"""What runtimes say, as the cause in a sentence: without error numbers, source files and stack traces of theirs."""

import re

LONGEST = 300
# What comes before, around and after the cause, runtime by runtime. The whole text stays behind `lowbit --debug`.
NOISE = tuple(
    re.compile(pattern, flags)
    for pattern, flags in (
        (r"\[ONNXRuntimeError\] : \d+ : \w+ : ", 0),
        (r"\n?Stacktrace:.*", re.DOTALL),
        (r"Status Message: (?:\S*\w\.(?:h|cc|cpp):\d+ )?", 0),
        (r"\S*\w\.(?:h|cc|cpp):\d+ ", 0),
        # Signatures, as C++ compilers write them.
        (r"\bonnxruntime::[\w:<>]+\([^()]*\)(?: const)?(?: \[with [^\]]*\])? ", 0),
        (r"^Exception from \S+:$", re.MULTILINE),
        (r"Check '.*' failed at \S+:$", re.MULTILINE),
        (r"^(?:FrontEnd API failed with \w+|Model wasn't fully converted\..*|-- \S+ with a message):?$", re.MULTILINE),
        (r"^While validating node 'opset.*$", re.MULTILINE),
        (r"^Summary:$|^-- Conversion is failed for:.*$|^To facilitate the conversion.*$", re.MULTILINE),
    )
)


NODE = re.compile(r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' ")


def cause(error: Exception) -> str:
    """The cause that an exception of a runtime names, in one line, without the full stop."""
    text = str(error)
    for pattern in NOISE:
        text = pattern.sub("", text)
    text = NODE.sub(r"at \1 '\2': ", text)
    # What only said where in the runtime it was has no cause in it.
    lines = [" ".join(line.split()) for line in (text.strip() or str(error)).splitlines()]
    joined = " ".join(line for line in lines if line).rstrip(".") or type(error).__name__
    return joined if len(joined) <= LONGEST else f"{joined[: LONGEST - 1]}…"
