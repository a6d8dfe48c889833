from __future__ import annotations

from selftrain.seeds import Stream


def test_a_seed_is_the_same_in_every_process_and_version() -> None:
    assert Stream(7).at(step=3, stream="sample", prompt_id="add/0", index=5).seed() == 51847551849801542334729753097576884318


def test_every_part_of_the_address_matters() -> None:
    start = Stream(1, 2, 3, "s", "p", 4)
    others = [start.at(branch=9), start.at(step=9), start.at(stream="x"), start.at(prompt_id="x"), start.at(index=9), Stream(9, 2, 3, "s", "p", 4)]
    assert len({one.seed() for one in [start, *others]}) == 7


def test_parts_do_not_run_together() -> None:
    assert Stream(0, stream="a", prompt_id="bc").seed() != Stream(0, stream="ab", prompt_id="c").seed()


def test_a_stream_starts_anew_each_time() -> None:
    stream = Stream(0, stream="s")
    assert stream.generator().random(3).tolist() == stream.generator().random(3).tolist()
