"""The decode step as CUDA graphs: recorded once for so many rows and columns, then replayed without Python between the kernels.

The board (board.py) stays in place from one sampling to the next, and weights are changed in place, so a graph serves until a sampling needs a larger
board. Rows that are not in use stand on a spare slot and a spare sequence, so that a graph may run more rows than are in use. While a graph is recorded all
rows stand there: what is drawn is not touched by the runs that recording needs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from selftrain.policies.base import SamplingParams
from selftrain.policies.torch.board import Board, Extent, Sizes, advance
from selftrain.policies.torch.cache import prompt_cache
from selftrain.policies.torch.forward import Forward
from selftrain.policies.torch.loading import first_line

Step = Callable[[], None]
Recorder = Callable[[Step], Step]
"""Takes a step that reads and writes fixed tensors, may run it, and gives what does the same again."""

LEAST_ROWS, LEAST_COLUMNS = 8, 64
WARMUP_RUNS = 2


class CudaRecorder:
    """Records CUDA graphs that share one pool of memory: they are never replayed at the same time, and what they give lies on the board.

    The pool ends with the last of its graphs: whoever drops them needs a new recorder.
    """

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Step) -> Step:
        """Run `step` twice on a side stream, so that libraries have set themselves up, then record it. Raises RuntimeError where it cannot be recorded."""
        side, main = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        side.wait_stream(main)
        with torch.cuda.stream(side):
            for _ in range(WARMUP_RUNS):
                step()
        main.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            step()
        return graph.replay


class Graphs:
    """Recorded steps of one model and the board that they work on, each board with a recorder of its own. `broken`: why recording failed; from then on
    every step is run as it is.
    """

    def __init__(self, make_recorder: Callable[[], Recorder]) -> None:
        self.make_recorder, self.recorder, self.broken = make_recorder, make_recorder(), ""
        self.board: Board | None = None
        self.replays: dict[Extent, Step] = {}
        self._made_for: tuple[object, ...] = ()

    def board_for(self, forward: Forward, sizes: Sizes, params: SamplingParams, stop_ids: Sequence[int]) -> Board:
        """A board of at least these sizes, with a spare sequence, slot and columns, all rows standing there. What drew on the one before has to be done."""
        made_for, wanted = (forward, replace(params, max_new_tokens=1), tuple(stop_ids)), with_spare(sizes)
        before = self.board.sizes if self.board is not None and made_for == self._made_for else None
        if self.board is None or before is None or any(has < needs for has, needs in zip(before, wanted, strict=True)):
            if before is not None and before.columns == wanted.columns:  # lengths and numbers that vary from step to step settle at their largest
                wanted = Sizes(*map(max, before, wanted))
            self.drop()
            self.board, self._made_for = Board(forward, wanted, params, stop_ids), made_for
            fill(self.board, forward)
        self.board.state.copy_(unused(self.board).expand(-1, self.board.sizes.rows))
        return self.board

    def drop(self) -> None:
        """Give the board's memory back, and that of the graphs."""
        self.board = None
        self.replays.clear()
        self.recorder = self.make_recorder()

    def advance(self, board: Board, forward: Forward, params: SamplingParams, extent: Extent) -> None:
        """One more token for each row in use, as `board.advance`, which is run over somewhat more."""
        sizes = board.sizes
        extent = Extent(
            bucket(extent.rows, LEAST_ROWS, sizes.rows),
            bucket(extent.prompt_tokens, LEAST_COLUMNS, sizes.prompt_tokens),
            bucket(extent.columns, LEAST_COLUMNS, sizes.columns),
        )
        replay = self.replays.get(extent)
        if replay is None:
            replay = self.replays[extent] = self._record(board, lambda: advance(board, forward, params, extent))
        replay()

    def _record(self, board: Board, step: Step) -> Step:
        if self.broken:
            return step
        state = board.state.clone()
        board.state.copy_(unused(board).expand(-1, board.sizes.rows))
        try:
            return self.recorder(step)
        except RuntimeError as error:
            self.broken = first_line(error)
            warnings.warn(
                f"the decode step cannot be recorded as a CUDA graph ({self.broken}): sampling goes on without graphs, slower and with the same results",
                RuntimeWarning,
                stacklevel=2,
            )
            return step
        finally:
            board.state.copy_(state)


def graphs_for(forward: Forward) -> Graphs | None:
    """None where the model is not on a GPU: a CPU has no launches to save."""
    return Graphs(CudaRecorder) if forward.device.type == "cuda" else None


def with_spare(sizes: Sizes) -> Sizes:
    """One sequence, one slot and two columns more: a row that is not in use writes its keys and its tokens behind those of any other."""
    return sizes._replace(sequences=sizes.sequences + 1, columns=sizes.columns + 2, slots=sizes.slots + 1)


def unused(board: Board) -> torch.Tensor:
    """The state [5, 1] of a row that is not in use: the last sequence, the last slot, token 0, at the last column, done."""
    sizes = board.sizes
    return torch.tensor([[sizes.sequences - 1], [(sizes.slots - 1) * sizes.places], [0], [sizes.columns - 1], [1]], device=board.state.device)


def fill(board: Board, forward: Forward) -> None:
    """Allocate keys and values of all rows and slots. The spare slot's prompt is empty, and a row that stands there is at position 0."""
    sizes, prompts = board.sizes, prompt_cache(forward.config)
    forward.prompts([(forward.pad_id,)], prompts)
    board.cache.store([sizes.slots - 1], prompts, sizes.slots, sizes.prompt_tokens)
    board.cache.make_room(sizes.rows, sizes.columns, sizes.columns)
    board.prompt_lengths[sizes.slots - 1] = 2 - sizes.columns


def bucket(count: int, least: int, most: int) -> int:
    """The next of least, 1.5 least, 2 least, 3 least, 4 least, 6 least, ... that holds `count`; `most` where that is less."""
    size = least
    while size < count:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return min(size, most)
