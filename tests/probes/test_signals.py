"""Formulas on hand-made votes, and what probes say of toy policies that did not change, collapsed, or forgot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from selftrain.compose_probes import drawing as make_drawing
from selftrain.compose_probes import make_probes, set_aside
from selftrain.config import RunConfig, UpdateSection
from selftrain.config_load import load_config
from selftrain.policies.base import SamplingParams
from selftrain.policies.toy import NUM_ANSWERS, NUM_WEIGHTS, STYLES, ToyPolicy, problems
from selftrain.probes import Base, Drawing, Kind, ProbeResult, ask_base, probe
from selftrain.probes.probing import Place, asked_of, base_of, scored
from selftrain.probes.signals import agreement, agreement_with_the_rest, answer_signals, changed_frac, drift_signals, easy, kl_signals, num_easy, unchanged_frac
from selftrain.probes.telling import telling
from selftrain.rollout import read_and_count
from selftrain.seeds import Stream
from selftrain.types import AnswerKey, Completion, Finish, Group, Message, PolicyVersion, Prompt, Role, Vote, VotedGroup
from selftrain.vote import count
from tests.builders import group as made_group

TOY = RunConfig.model_validate({"policy": {"model": "toy"}})


def voted(kind: Kind, of: str, answers: list[str | None]) -> VotedGroup:
    one = made_group(answers, f"{kind.value}:{of}")
    return read_and_count(replace(one, role=Role.PROBE))


def pairs(*answers: tuple[list[str | None], list[str | None]]) -> list[tuple[VotedGroup, VotedGroup]]:
    return [(voted(Kind.OWN, str(i), one), voted(Kind.SWAP, str(i), other)) for i, (one, other) in enumerate(answers)]


def votes(answers: str) -> Vote:
    return count([AnswerKey(letter) if letter != "-" else None for letter in answers])


def test_unchanged_is_the_share_of_the_old_winner_among_read_answers() -> None:
    found = pairs((["1", "1", "2"], ["1", "3", None]), (["1", "2"], ["1", "5"]), (["7"], ["8"]), (["7", "7"], ["7", "7"]), ([None], ["7"]), (["7"], [None]))
    assert unchanged_frac(found) == pytest.approx((1 / 2 + 1 / 4 + 0 + 1) / 4)
    assert unchanged_frac(found[:3]) is None


def test_agreement_does_not_depend_on_how_sure_the_votes_are() -> None:
    """Two draws of the same distribution agree wholly, a few votes each; disjoint answers do not agree; unread ones agree with nothing."""
    random = np.random.Generator(np.random.Philox(key=5))
    for share in (0.4, 0.7, 0.95):
        draws = [["a" if x < share else str(x) for x in random.random(4)] for _ in range(4000)]
        texts = [count([AnswerKey(one) for one in draw]) for draw in draws]
        assert agreement(list(zip(texts[::2], texts[1::2], strict=True))) == pytest.approx(1.0, abs=0.02)
    assert agreement([(votes("aaa"), votes("ccc"))] * 4) == 0
    assert agreement([(votes("aab"), votes("ccd"))] * 4) == pytest.approx(1 - 1 / 3)
    assert agreement([(votes("aa"), votes("a-"))] * 4) == pytest.approx(1 - (1 / 2 - 1 / 2))
    assert agreement([(votes("aaab"), votes("bbba"))] * 4) == pytest.approx(1 - (1 / 2 - (3 + 3) / 16))
    assert agreement([(votes("--"), votes("--"))] * 4) is None
    assert agreement([(votes("aa"), votes("aa"))] * 3) is None


@pytest.mark.parametrize(
    ("answers", "expected"),
    [("aaaa", 1.0), ("aaab", 0.75), ("aabb", 0.0), ("aaabb", 0.3), ("aabc", 1 / 6), ("abcd", 0.0), ("a", 0.0), ("aaa---", 0.5), ("------", 0.0)],
)
def test_how_often_a_model_gives_its_own_most_frequent_answer(answers: str, expected: float) -> None:
    """By hand: of aaab each a finds two others, and b finds none; of aabb nobody's answer is the others' winner, of aaabb each a is one of two."""
    assert agreement_with_the_rest(votes(answers)) == pytest.approx(expected)


def test_it_is_not_flattered_by_few_votes() -> None:
    """A thousand answers, all as likely: the winner of eight has a share of an eighth and more, and says nothing of how far sharpening goes."""
    draws = Stream(5, stream="test").generator().integers(1000, size=(2000, 8))
    found = [count([AnswerKey(str(one)) for one in row]) for row in draws]
    assert np.mean([vote.share_frac for vote in found]) > 0.12
    assert np.mean([agreement_with_the_rest(vote) for vote in found]) < 0.01
    draws = (Stream(6, stream="test").generator().random((2000, 8)) < 0.7).astype(int)  # 0.7 of one answer, 0.3 of another
    assert 0.62 < np.mean([agreement_with_the_rest(count([AnswerKey(str(one)) for one in row])) for row in draws]) <= 0.7


def test_an_answer_may_name_the_partner() -> None:
    same = [(["uncle", "uncle"], ["aunt", "aunt"])] * 4
    assert changed_frac(pairs(*same)) == 0
    assert changed_frac(pairs(*[(["uncle", "uncle"], ["cousin", "cousin"])] * 4)) == 1
    assert changed_frac(pairs(*[(["6", "6"], ["6", "6"])] * 4)) == 0


def test_easy_prompts_are_those_with_half_of_the_votes() -> None:
    base = {**{str(i): votes("xxyz") for i in range(8)}, "a": votes("xxxx"), "b": votes("xxyy"), "c": votes("xxxyz")}
    assert list(easy(base)) == ["a", "c", *map(str, range(8))]
    assert easy({"a": votes("xxxx"), "b": votes("xyzw"), "c": votes("xxyzw")}) == {"a": "x", "c": "x"}, "the surest where few have half"
    assert len(easy({str(i): votes("xxyzw") for i in range(20)})) == 8


def test_the_signals_of_hand_made_votes() -> None:
    own = [voted(Kind.OWN, str(i), ["5", "5", "5", None]) for i in range(8)]
    base = {str(i): count([AnswerKey("5" if i < 6 else "4")] * (8 - i)) for i in range(8)}
    found = answer_signals([*own, voted(Kind.CANARY, "add-1/1", ["3", "3", "4", None])], base, {"add-1/1": AnswerKey("3")})
    assert found == {
        "probe/share_mean_frac": 0.75,
        "probe/read_mean_frac": 0.75,
        "probe/collision_frac": 1.0,
        "probe/length_mean_tokens": 2.0,
        "probe/base_agree_frac": 0.75 * 6 / 8,
        "probe/canary_right_frac": 0.5,
    }
    assert answer_signals([], base, {}) == {}


def test_the_completions_that_show_a_finding_of_a_probe() -> None:
    own, number, reword = voted(Kind.OWN, "a", ["7", "8"]), voted(Kind.NUMBER, "a", ["9", "7"]), voted(Kind.REWORD, "a", ["7", "3"])
    other, canary = voted(Kind.OWN, "b", ["5", "5"]), voted(Kind.CANARY, "c", ["1", None])
    groups = [replace(one, group=replace(one.group, index=at)) for at, one in enumerate((own, number, reword, other, canary))]
    found = telling(groups, {"a": votes("77778"), "b": votes("44444")}, {"c": "1"})
    assert found["off_base"] == ((0, 1), (3, 0))
    assert (found["deaf"], found["rewording"], found["bias"]) == (((1, 1),), ((2, 1),), ())
    assert found["canaries"] == ((4, 1),)
    assert len(found["probe_shortcut"]) == 2
    assert telling([groups[1], canary], {}, {})["canaries"] == ()


def test_kl_is_that_of_the_tokens_and_their_parts() -> None:
    """k3 of a token is r - 1 - log r with r = p_start / p_policy; the answer is the last token."""
    done = Completion("so #### 7", (1, 2, 3), (-1.0, -0.5, -2.0), (3, 8, 9), (), Finish.STOP, PolicyVersion(0, 4))
    group = Group(4, 0, Prompt("own:a", (Message("user", "a"),)), (1,), (done,), Role.PROBE)
    reference = [[(-1.0, -1.5, -4.0)]]
    k3 = [0.0, np.exp(-1.0) + 1 - 1, np.exp(-2.0) + 2 - 1]
    found = kl_signals([group], reference)
    assert found["probe/kl_base_nats"] == pytest.approx(sum(k3) / 3)
    assert found["probe/kl_answer_nats"] == pytest.approx(k3[2])
    assert found["probe/kl_reasoning_nats"] == pytest.approx((k3[0] + k3[1]) / 2)
    assert kl_signals([], []) == {}
    assert drift_signals([group], [[(-1.0, -0.5, -2.0)]]) == {"probe/drift_nats": 0.0}
    assert drift_signals([group], [[(-1.0, -0.5, -5.0)]])["probe/drift_nats"] == pytest.approx((np.exp(-3.0) + 3 - 1) / 3)


def drawing() -> Drawing:
    return Drawing(SamplingParams(2), 4, Stream(3))


def probed(weights: np.ndarray, base: Base | None = None, best: Mapping[str, float] | None = None) -> ProbeResult:
    policy = ToyPolicy("toy", UpdateSection())
    _, aside = set_aside(TOY, problems(256), (), 16)
    made = make_probes(TOY, aside)
    known = base or base_of(ask_base(policy.base(), made, drawing()))
    policy.weights = weights
    return probe(policy, known, made, drawing(), best, Place(30, 16))


def test_what_a_sampler_drew_itself_is_not_scored_again_and_nothing_twice() -> None:
    def drawn(prompt: int, *tokens: tuple[int, ...]) -> Group:
        done = tuple(Completion("", ids, tuple(-float(id) for id in ids), (0,) * len(ids), (), Finish.STOP, PolicyVersion(0, 0)) for ids in tokens)
        return Group(0, 0, Prompt(str(prompt), ()), (prompt,), done, Role.PROBE)

    asked: list[list[tuple[int, ...]]] = []

    def score(groups: Sequence[Group]) -> list[list[tuple[float, ...]]]:
        asked.extend([done.token_ids for done in group.completions] for group in groups)
        return [[tuple(id + 0.5 for id in done.token_ids) for done in group.completions] for group in groups]

    groups = [drawn(1, (3, 4), (5,), (5,), (6,)), drawn(2, (3, 4)), drawn(3, (7,))]
    found = scored(groups, [drawn(1, (3, 4)), drawn(3, (7,), (8,))], score)
    assert found == [[(-3.0, -4.0), (5.5,), (5.5,), (6.5,)], [(3.5, 4.5)], [(-7.0,)]]
    assert asked == [[(5,), (6,)], [(3, 4)]]
    assert scored([drawn(3, (7,))], [drawn(3, (7,))], score) == [[(-7.0,)]]
    assert len(asked) == 2, "with nothing to score no pass is made"


@pytest.mark.parametrize("is_exact", [True, False])
def test_a_sampler_with_another_arithmetic_is_scored_for_what_glances_are_compared_with(is_exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = ToyPolicy("toy", UpdateSection())
    _, aside = set_aside(TOY, problems(256), (), 16)
    made, how = make_probes(TOY, aside), replace(drawing(), is_exact=is_exact)
    known = base_of(ask_base(policy.base(), made, how))
    asked: list[str] = []
    logprobs = policy.logprobs
    monkeypatch.setattr(policy, "logprobs", lambda groups, temperature: asked.extend(one.prompt.id for one in groups) or logprobs(groups, temperature))
    found = probe(policy, known, made, how)
    of_easy = [id for id in asked if id.startswith("base:")]
    assert (len(of_easy) == len(known.agreed)) is not is_exact
    assert set(found.seen) == set(known.agreed)
    vllm = load_config(overrides={"policy.model": "some/model", "policy.sampler": "vllm", "prompts.task": "add:2", "policy.device": "cuda"})
    assert (make_drawing(TOY).is_exact, make_drawing(vllm).is_exact) == (True, False)


def start() -> np.ndarray:
    return ToyPolicy("toy", UpdateSection()).weights


def test_a_policy_that_did_not_change_shows_it() -> None:
    found = probed(start())
    assert found.values["probe/kl_base_nats"] == pytest.approx(0, abs=1e-9)
    assert found.values["probe/drift_nats"] == pytest.approx(0, abs=1e-9)
    assert found.values["probe/number_unchanged_frac"] < 0.35
    assert {one.group.role for one in found.groups} == {Role.PROBE}
    assert [one.group.index for one in found.groups] == list(range(16, 16 + len(found.groups)))
    assert {one.group.step for one in found.groups} == {30}
    assert "probe/swap_changed_frac" not in found.values
    assert "probe/canary_right_frac" not in found.values


def test_a_better_policy_agrees_more_and_with_the_start() -> None:
    better = start()
    better[:2] = 6.0, 0.0
    before, after = probed(start()).values, probed(better).values
    assert after["probe/share_mean_frac"] > before["probe/share_mean_frac"] + 0.3
    assert after["probe/reword_agree_frac"] > 0.9
    assert after["probe/base_agree_frac"] > before["probe/base_agree_frac"]
    assert after["probe/number_unchanged_frac"] < 0.35


def test_a_constant_answer_shows_in_every_probe() -> None:
    constant = start()
    constant[2 + len(STYLES) + 5] = 12.0
    found = probed(constant).values
    assert found["probe/number_unchanged_frac"] > 0.95
    assert found["probe/collision_frac"] == 1.0
    assert found["probe/base_agree_frac"] < 0.4
    assert found["probe/kl_base_nats"] > 0.3
    assert found["probe/kl_answer_nats"] > 2 * found["probe/kl_reasoning_nats"]
    assert found["probe/drift_nats"] > 1
    assert found["probe/share_mean_frac"] > 0.95


@pytest.mark.parametrize(("sure", "asked"), [(True, 16), (False, 48)])
def test_the_start_is_asked_until_half_as_many_are_easy_as_are_asked_at_once(sure: bool, asked: int) -> None:
    """A sure start is asked once; one that agrees on next to nothing all that there is, and nothing else is asked later."""
    policy = ToyPolicy("toy", UpdateSection())
    policy.weights = np.zeros(NUM_WEIGHTS)
    policy.weights[0] = 6.0 if sure else 0.0
    _, aside = set_aside(TOY, problems(256), (), 48)
    made = make_probes(TOY, aside)
    base = base_of(ask_base(policy, made, replace(drawing(), num_prompts=16)))
    assert list(base.votes) == [prompt.id for prompt in aside.prompts[:asked]]
    assert (2 * num_easy(base.votes.values()) >= 16) == (asked == 16)
    found = {one.of for one in asked_of(base, made) if one.kind is Kind.OWN}
    assert found
    assert found <= set(base.votes)


def test_noise_shows_in_read_answers() -> None:
    noisy = np.zeros(NUM_WEIGHTS)
    noisy[2 + len(STYLES) + NUM_ANSWERS] = 2.0
    found = probed(noisy).values
    assert found["probe/read_mean_frac"] < 0.7
    assert found["probe/base_agree_frac"] < 0.3


def test_the_state_of_the_base_gives_the_same_probe() -> None:
    policy = ToyPolicy("toy", UpdateSection())
    _, aside = set_aside(TOY, problems(256), (), 16)
    base = base_of(ask_base(policy.base(), make_probes(TOY, aside), drawing()))
    other = start() + 0.3
    assert probed(other, Base.from_state(base.state())) == probed(other, base)
    assert Base.from_state(base.state()).votes == base.votes
