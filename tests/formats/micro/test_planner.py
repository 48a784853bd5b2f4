from hypothesis import given, settings
from hypothesis import strategies as st

from lowbit.formats.micro.planner import Buffer, extent, fullest_step, offsets


def test_a_chain_takes_what_its_largest_pair_takes():
    # x -> a -> b -> y: two of them live at a time, and a reuses nothing of x.
    chain = [Buffer(64, 0, 1), Buffer(128, 1, 2), Buffer(96, 2, 3), Buffer(16, 3, 3)]
    assert offsets(chain) == [128, 0, 128, 0]
    assert extent(chain) == 224
    assert fullest_step(chain) == (2, 224)


def test_a_small_one_fills_a_gap_and_a_large_one_goes_on_top():
    # The first two are never there together, so the third, which meets both, lies above them; the last fits below.
    buffers = [Buffer(100, 0, 1), Buffer(60, 2, 3), Buffer(80, 1, 2), Buffer(40, 3, 3)]
    assert offsets(buffers) == [0, 0, 100, 60]


def test_of_equal_sizes_the_last_comes_first():
    assert offsets([Buffer(16, 0, 0), Buffer(16, 0, 0), Buffer(16, 0, 0)]) == [32, 16, 0]


def test_nothing_takes_nothing():
    assert (extent([]), fullest_step([])) == (0, (0, 0))


LIVES = st.tuples(st.integers(1, 64), st.integers(0, 12), st.integers(0, 12)).map(
    lambda drawn: Buffer(16 * drawn[0], min(drawn[1:]), max(drawn[1:]))
)


@settings(max_examples=100)
@given(st.lists(LIVES, max_size=24))
def test_what_lives_together_never_overlaps_and_no_plan_is_below_the_bound(buffers):
    places = offsets(buffers)
    for one, buffer in enumerate(buffers):
        for other in range(one):
            old = buffers[other]
            together = old.first <= buffer.last and buffer.first <= old.last
            apart = places[one] + buffer.size <= places[other] or places[other] + old.size <= places[one]
            assert apart or not together
    assert extent(buffers) >= fullest_step(buffers)[1]
    assert extent(buffers) <= sum(buffer.size for buffer in buffers)
