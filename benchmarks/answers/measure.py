"""The figures of `selftrain.answers`, side by side with math-verify and with counting plain strings, in one run.

    python benchmarks/answers/measure.py [--peers] [--hostile-peers] [--samples FOLDER] [--memory N]

`--peers` adds math-verify (minutes), `--hostile-peers` only its hostile answers, each in a process that is ended after 5 s; `--samples` adds the shipped cases;
`--memory` streams N completions and reports the resident size on the way. Times are processor times of one thread.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hostile import hostile_answers
from pairs import Pair, generated_pairs, held_out_pairs, sample_pairs, written_pairs
from workload import KnownGroup, groups

from selftrain.answers import extract, key, read
from selftrain.vote import count
from selftrain.vote_stream import votes_of, votes_of_rows

HERE = Path(__file__).parent
NUMBERS = ("integer", "big_integer", "decimal", "integers", "decimals", "decimal_precision")
Equal = Callable[[str, str], bool]


def measure_pairs(name: str, equal: Equal, pairs: Sequence[Pair], title: str = "pairs") -> None:
    wrong: Counter[str] = Counter()
    false_positives = in_numbers = 0
    began = time.process_time()
    for kind, a, b, expected in pairs:
        if equal(a, b) != expected:
            wrong[kind] += 1
            false_positives += not expected
            in_numbers += not expected and kind in NUMBERS
    spent = time.process_time() - began
    right = 1 - wrong.total() / len(pairs)
    positives = f"{false_positives} false positives ({in_numbers} in numbers)"
    print(f"{title:12} {name:12} {len(pairs)} pairs, {right:.2%} right, {positives}, {len(pairs) / spent:,.0f} pairs/s")
    if wrong:
        print("             " + " " * 13 + "wrong: " + ", ".join(f"{kind} {n}" for kind, n in wrong.most_common(12)))


def measure_extraction(name: str, find: Callable[[str], str | None], files: Sequence[Path], title: str = "extraction") -> None:
    rows = [json.loads(line) for file in files if file.exists() for line in file.read_text(encoding="utf-8").splitlines()]
    right = invented = 0
    for row in rows:
        found = find(row["completion"])
        right += found == row["answer"] or found in row["accept"]
        invented += row["answer"] is None and found is not None
    print(f"{title:12} {name:12} {len(rows)} completions, {right / len(rows):.2%} right, {invented} answers where there is none")


def measure_hostile() -> None:
    answers = hostile_answers()
    slowest = 0.0
    for answer in answers:
        for text in (answer, f"The answer is {answer}", f"\\boxed{{{answer}}}"):
            began = time.process_time()
            key(text)
            extract(text)
            slowest = max(slowest, time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    everything = f"{len(answers)} of {len(answers)} survived"
    print(f"hostile      selftrain    {everything}, slowest {slowest * 1e3:.1f} ms, peak resident size {peak:.0f} MB")


def measure_hostile_peer(limit_s: float = 5.0) -> None:
    """How many hostile answers math-verify survives: back within a second, without an exception, each in its own process."""
    import math_verify  # noqa: F401 - loaded before the processes are forked, so that its import is not measured

    answers = [answer for answer in hostile_answers() if len(answer) <= 200_000]
    survived = 0
    for answer in answers:
        process = multiprocessing.Process(target=_peer_once, args=(answer,))
        began = time.monotonic()
        process.start()
        process.join(limit_s)
        if process.is_alive():
            process.kill()
            process.join()
        survived += process.exitcode == 0 and time.monotonic() - began < 1.0
    print(f"hostile      math-verify  {survived} of {len(answers)} survived")


def _peer_once(answer: str) -> None:
    from math_verify import parse, verify

    verify(parse("$1$"), parse(f"${answer}$"))


def group_label(group: KnownGroup, keys: list[str | None]) -> tuple[bool, bool]:
    """(whether the vote's winner is the known label, whether its share of all completions is exact); a known tie accepts any of the tied."""
    counts = Counter(found for found in keys if found is not None)
    known = Counter(answer for answer in group.answers if answer is not None)
    if not known:
        return not counts, not counts
    if not counts:
        return False, False
    top, votes = counts.most_common(1)[0]
    members = Counter(answer for answer, found in zip(group.answers, keys, strict=True) if found == top)
    leader = members.most_common(1)[0][0]
    return leader is not None and known[leader] == max(known.values()), votes == max(known.values())


def measure_workload(name: str, keys_of: Callable[[list[str]], list[str | None]], num_groups: int) -> None:
    known = groups(num_groups)
    labels = shares = 0
    spent: list[float] = []
    for group in known:
        began = time.process_time()
        keys = keys_of(group.completions)
        spent.append(time.process_time() - began)
        right, exact = group_label(group, keys)
        labels, shares = labels + right, shares + exact
    total = sum(len(group.completions) for group in known)
    p99 = sorted(spent)[int(len(spent) * 0.99)]
    print(
        f"workload     {name:12} {num_groups} groups x 64, {labels / num_groups:.2%} right labels, {shares / num_groups:.2%} exact shares, "
        f"{total / sum(spent):,.0f} completions/s, p99 {p99 * 1e3:.2f} ms a group"
    )


def measure_orders() -> None:
    rng = random.Random(5)
    known = groups(60, 64, seed=9)
    same = 0
    for group in known:
        votes = set()
        for _ in range(8):
            shuffled = rng.sample(group.completions, len(group.completions))
            votes.add(count(read(shuffled).keys))
        same += len(votes) == 1
    print(f"orders       selftrain    {same} of {len(known)} groups give one vote in 8 orders")


def measure_linear() -> None:
    shapes = {
        "prose": "The sum of 3 and 4 is 7, so we go on. ", "open boxes": "\\boxed{", "braces": "{", "tags": "<answer>", "hashes": "#### x\n",
        "phrases": "the answer is ",
        "digits": "9", "words": "word ",
    }  # fmt: skip
    for name, piece in shapes.items():
        times = []
        for size in (10_000, 100_000, 1_000_000):
            text = piece * (size // len(piece))
            began = time.process_time()
            for _ in range(3):
                extract(text)
            times.append((time.process_time() - began) / 3)
        print(f"linear       {name:12} extraction of 10 kB {times[0] * 1e3:.3f} ms, 100 kB {times[1] * 1e3:.3f} ms, 1 MB {times[2] * 1e3:.3f} ms")


def measure_memory(num_completions: int) -> None:
    """Streams completions with ever new answers and prints the peak resident size on the way."""

    def rows() -> Iterator[dict[str, str]]:
        for n in range(num_completions):
            yield {"prompt": str(n // 64), "completion": f"We add {n} and {n % 7}. The answer is \\boxed{{{n % 1000}.{n // 640}}}."}

    began = time.process_time()
    seen = 0
    for number, group in enumerate(votes_of_rows(rows(), "generated"), 1):
        seen += group.vote.num_votes
        if number % (num_completions // 64 // 10) == 0:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"memory       {seen:>10,} completions: peak {peak:.1f} MB, {seen / (time.process_time() - began):,.0f} completions/s", flush=True)


def measure_stream() -> None:
    """Votes of files with the workload's completions, reading and parsing of the file included."""
    import pyarrow
    import pyarrow.parquet

    rows = [{"prompt": f"p{number}", "completion": completion} for number, group in enumerate(groups()) for completion in group.completions]
    with tempfile.TemporaryDirectory() as folder:
        lines, table = f"{folder}/completions.jsonl", f"{folder}/completions.parquet"
        Path(lines).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
        for path in (lines, table):
            began = time.process_time()
            num_groups = sum(1 for _ in votes_of(path))
            spent = time.process_time() - began
            print(f"stream       {Path(path).suffix[1:]:12} {num_groups} groups, {len(rows) / spent:,.0f} completions/s")


def plain_equal(a: str, b: str) -> bool:
    return a.strip() == b.strip()


def plain_extract(completion: str) -> str | None:
    found = re.findall(r"\\boxed\{([^{}]*)\}", completion)
    return found[-1] if found else None


def peer_equal(a: str, b: str) -> bool:
    from math_verify import parse, verify

    return bool(verify(parse(f"${a}$"), parse(f"${b}$")))


def peer_extract(completion: str) -> str | None:
    from math_verify import parse

    found = parse(completion)
    return str(found[1]) if len(found) > 1 else None


def peer_keys(completions: list[str]) -> list[str | None]:
    """Clusters by math-verify: each completion joins the first whose answer it equals; equal strings are merged first."""
    from math_verify import parse, verify

    leaders: list[tuple[str, object]] = []
    known: dict[str, str | None] = {}
    for completion in completions:
        parsed = parse(completion)
        text = str(parsed[1]) if len(parsed) > 1 else None
        if text is None:
            known[completion] = None
            continue
        leader = next((name for name, other in leaders if name == text or verify(other, parsed)), None)
        if leader is None:
            leaders.append((text, parsed))
            leader = text
        known[completion] = leader
    return [known[completion] for completion in completions]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--peers", action="store_true")
    options.add_argument("--hostile-peers", action="store_true")
    options.add_argument("--samples", type=Path, default=HERE / "../../../shared/cases")
    options.add_argument("--memory", type=int, default=0)
    given = options.parse_args()
    if given.memory:
        measure_memory(given.memory)
        return
    if given.hostile_peers:
        measure_hostile_peer()
        return
    measure_hostile()  # first: the peak of the resident size is that of the run so far
    pairs, held_out = [*sample_pairs(given.samples), *written_pairs(), *generated_pairs()], list(held_out_pairs())
    completions = [HERE / "completions.jsonl", given.samples / "extraction.jsonl"]
    measure_pairs("selftrain", lambda a, b: key(a) == key(b), pairs)
    measure_pairs("selftrain", lambda a, b: key(a) == key(b), held_out, "held-out")
    measure_pairs("plain text", plain_equal, pairs)
    measure_extraction("selftrain", extract, completions)
    measure_extraction("selftrain", extract, [HERE / "held_out_completions.jsonl"], "held-out")
    measure_extraction("plain boxed", plain_extract, completions)
    measure_workload("selftrain", lambda completions: list(read(completions).keys), 512)
    measure_workload("plain boxed", lambda completions: [plain_extract(completion) for completion in completions], 512)
    measure_stream()
    measure_orders()
    measure_linear()
    if given.peers:
        measure_pairs("math-verify", peer_equal, pairs)
        measure_pairs("math-verify", peer_equal, held_out, "held-out")
        measure_workload("math-verify", peer_keys, 16)


if __name__ == "__main__":
    main()
