import itertools

import pytest

from lowbit.quantization.planning.bits import schemes_by_size
from lowbit.schemes.clusters import Clusters
from lowbit.schemes.linear import Linear

SIZES = (64, 300, 1200, 5000)


def tensors(scheme, sizes=SIZES):
    return [(scheme, (size, 16), 0) for size in sizes]


def noise(schemes):
    return sum(4.0**-scheme.bits for scheme in schemes)


def stored(schemes, sizes=SIZES):
    return sum(scheme.stored_bytes((size, 16), 0) for scheme, size in zip(schemes, sizes, strict=True))


@pytest.mark.parametrize("scheme", [Linear(2), Linear(4, symmetric=False), Clusters(3, per="tensor"), Clusters(1)])
@pytest.mark.parametrize("extra", [0.1, 0.4, 1.0])
def test_no_other_choice_of_so_many_bytes_has_less_noise(scheme, extra):
    found = schemes_by_size(tensors(scheme), extra, widest=8, float_bytes=4)
    plain = stored([scheme] * 4)
    assert plain <= stored(found) <= plain + extra * sum(SIZES) * 16 / 8
    widths = [[scheme.with_bits(bits) for bits in range(scheme.bits, 9)]] * 4
    others = [other for other in itertools.product(*widths) if stored(other) <= stored(found)]
    assert noise(found) == pytest.approx(min(map(noise, others)))


def test_a_quarter_of_the_weights_is_a_bit_more():
    scheme = Linear(3)
    found = schemes_by_size(tensors(scheme, (400, 1600, 6400, 25600)), 0.32, widest=8, float_bytes=4)
    assert [one.bits for one in found] == [6, 5, 4, 3]
    assert {one.per for one in found} == {"channel"}


@pytest.mark.parametrize("extra", [0.15, 0.25, 0.4, 0.8])
def test_of_layers_that_are_alike_the_first_ones_get_what_is_left(extra):
    """A Lagrange multiplier alone gives a bit to all of them or to none."""
    sizes = (1200,) * 9 + (64,)
    found = schemes_by_size(tensors(Linear(4), sizes), extra, widest=8, float_bytes=4)
    left = stored([Linear(4)] * 10, sizes) + extra * sum(sizes) * 16 / 8 - stored(found, sizes)
    assert 0 <= left < 1200 * 16 / 8, "less than one more bit for one more layer takes"
    bits = [scheme.bits for scheme in found[:9]]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] > bits[-1]


def test_without_bits_to_spend_all_stay_as_they_are():
    assert schemes_by_size(tensors(Linear(4)), 0.0, widest=8, float_bytes=4) == [Linear(4)] * 4


@pytest.mark.parametrize("widest", [5, 8])
def test_with_bits_for_all_none_gets_more_than_the_widest(widest):
    assert schemes_by_size(tensors(Linear(2)), 20.0, widest=widest, float_bytes=4) == [Linear(widest)] * 4


def test_what_a_code_book_takes_counts():
    """A book of 256 levels takes as much as all codes of a small layer."""
    shapes = ((64, 16), (32000, 64))
    linear, clusters = (
        schemes_by_size([(scheme, shape, 0) for shape in shapes], 0.004, widest=8, float_bytes=4)
        for scheme in (Linear(2, per="tensor"), Clusters(2, per="tensor"))
    )
    assert linear[0].bits > clusters[0].bits > 2


def test_nothing_becomes_as_large_as_in_float():
    """A book of 256 levels alone takes as much as 256 weights in float; without the limit there are bits to waste."""
    asked = [(Clusters(2, per="tensor"), (16, 16), 0)]
    (limited,), (free,) = (schemes_by_size(asked, 99.0, widest=8, float_bytes=limit) for limit in (4, None))
    assert limited.stored_bytes((16, 16), 0) < 4 * 256 <= free.stored_bytes((16, 16), 0)
    assert limited.with_bits(limited.bits + 1).stored_bytes((16, 16), 0) >= 4 * 256
