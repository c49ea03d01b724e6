"""The lifecycle: the table of moves is what the drawing above it says."""

from hypothesis import given
from hypothesis import strategies as st

from protocol.lifecycle import MOVES, PodState

LIVING = ("STARTING", "IDLE", "RUNNING", "WAITING", "PAUSED")
#: The arrows of the drawing, by letter.
DRAWN = {
    "a": [("STARTING", "IDLE")],
    "b": [("IDLE", "RUNNING")],
    "c": [("RUNNING", "PAUSED"), ("STARTING", "PAUSED")],
    "d": [("RUNNING", "IDLE")],
    "e": [("PAUSED", "RUNNING")],
    "f": [("PAUSED", "IDLE")],
    "g": [(state, "FAILED") for state in LIVING],
    "h": [(state, "STOPPED") for state in LIVING],
    "w": [("RUNNING", "WAITING"), ("WAITING", "RUNNING"), ("WAITING", "IDLE")],
}


def test_the_table_holds_the_arrows_of_the_drawing_and_no_others():
    drawn = {(PodState[old], PodState[new]) for arrows in DRAWN.values() for old, new in arrows}
    assert {(old, new) for old, news in MOVES.items() for new in news} == drawn


def test_every_state_has_its_row():
    assert set(MOVES) == set(PodState)


def test_from_every_living_state_a_pod_can_stop_and_no_move_leaves_the_end():
    ends = {PodState.STOPPED, PodState.FAILED}
    assert all(not MOVES[end] for end in ends)
    assert all(ends <= MOVES[state] for state in PodState if state not in ends)


@given(st.sampled_from(PodState), st.sampled_from(PodState))
def test_no_state_moves_to_itself_or_back_to_the_start(old: PodState, new: PodState):
    if new in MOVES[old]:
        assert old is not new
        assert new is not PodState.STARTING
