"""Details: a line for each part of the work that is done, and for each decision."""

import contextlib
import io
import re

import networks
from lowbit.progress import SILENT, tell_detail
from lowbit.quantization.quantize import quantize
from lowbit.reports.progress import Lines
from lowbit.reports.verbose import Verbose, verbose
from test_cli import run


def test_every_part_and_every_decision_has_a_line():
    file = io.StringIO()
    with verbose(contextlib.nullcontext(Lines(file, every=0.0))) as progress:
        quantize(
            networks.residual_network(), "linear4", calibration=networks.inputs(16), effort="fast", progress=progress
        )
    lines = [line for line in file.getvalue().splitlines() if re.match(r" *\d+\.\d s  ", line)]
    steps = [line for line in lines if " s  step " in line]
    assert re.search(r"step rounding.*: \S+ [\d.e-]+ -> [\d.e-]+, (not )?kept; \d+\.\d s$", steps[-1])
    assert any(re.search(r"s  rounding: \d+ in \d+\.\d s$", line) for line in lines)


def test_a_loop_that_is_left_is_told_as_far_as_it_came():
    file = io.StringIO()
    items = Verbose(Lines(file)).track(range(9), "reading")
    next(items)
    next(items)
    items.close()
    assert re.fullmatch(r" +0\.\d s  reading: 1 in 0\.\d s\n", file.getvalue())


def test_who_did_not_ask_is_told_nothing():
    file = io.StringIO()
    tell_detail(Lines(file), "a detail")
    tell_detail(SILENT, "a detail")
    assert file.getvalue() == ""


def test_quiet_and_verbose_do_not_go_together(capsys):
    code, out, err = run("--quiet", "-v", "recipes", capsys=capsys)
    assert (code, out) == (2, "")
    assert "--quiet and --verbose do not go together" in err
