"""Whether taking a feature away on text not seen lowers what it is said to say more than taking random directions of the
same length away does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutaway.features.sets import FeatureSet
from cutaway.network.edits import EditFunction, Here
from cutaway.network.inputs import Tokens
from cutaway.network.pricing import announce
from cutaway.network.sites import Site
from cutaway.results import Work
from cutaway.statistics import Estimate, mean_of
from cutaway.sweeps.additions import AdditionRunner, Additions

if TYPE_CHECKING:
    from cutaway.features.index.token_rows import TokenRows
    from cutaway.network import Network

#: Random directions beside a feature; examples on which it is taken away, so many of one window before others are looked at.
RANDOM, EXAMPLES, _EACH = 4, 24, 2
#: Tokens of windows of one length that are run at once.
_TOKENS = 512
#: Passes from which on some are timed beforehand; passes over single tokens that are; seconds of a first pass from which on
#: warming up makes no difference.
_WORTH, _TIMED, _WARM = 24, 4, 1.0
_LABEL = "taking features away"


@dataclass(frozen=True, eq=False)
class SayTrial:
    """What is to be tried of one label.

    Attributes:
        feature: its number.
        says: the tokens that it is said to say.
        rows: at which it is active, in texts not seen.
        strength: [n] its activation at each.
    """

    feature: int
    says: tuple[int, ...]
    rows: NDArray[np.int64]
    strength: NDArray[np.float32]


def window_ranks(rows: TokenRows, seed: int) -> NDArray[np.int64]:
    """[W] the order in which all trials look at windows, at random: one of every text, then a second of each, ...

    Trials that look at the same windows share their runs.
    """
    draw = np.random.default_rng([seed, 7]).permutation(len(rows.text))
    by_text = draw[np.argsort(rows.text[draw], kind="stable")]
    turn = _turns(rows.text[by_text])
    place = np.empty(len(draw), np.int64)
    place[draw] = np.arange(len(draw))
    ranks = np.empty(len(draw), np.int64)
    ranks[by_text[np.lexsort((place[by_text], turn))]] = np.arange(len(draw))
    return ranks


def examples(
    at: NDArray[np.int64], rows: TokenRows, ranks: NDArray[np.int64], seed: list[int]
) -> NDArray[np.int64]:
    """Which of the rows `at` a trial takes, ascending: of each window a few drawn at random, window by window as ranked, and
    from the first window again where there are too few.
    """
    drawn = np.random.default_rng(seed).permutation(len(at))
    window = rows.window[at[drawn]]
    order = np.argsort(window, kind="stable")
    turn = np.empty(len(at), np.int64)
    turn[order] = _turns(window[order])
    chosen = np.lexsort((ranks[window], turn // _EACH))[:EXAMPLES]
    return np.sort(drawn[chosen])


def _turns(ordered: NDArray[Any]) -> NDArray[np.int64]:
    """[n] how many that are equal stand before each."""
    return np.arange(len(ordered)) - np.searchsorted(ordered, ordered)


@dataclass(frozen=True, eq=False)
class Tries:
    """All that is run, k tries: every example of every trial without its feature, and without random directions.

    Attributes:
        trial: [k] number of the trial.
        row: [k] at which row of the index.
        vectors: site -> [k d] what is added there.
    """

    trial: NDArray[np.int64]
    row: NDArray[np.int64]
    vectors: dict[Site, Tensor]

    def __len__(self) -> int:
        return len(self.trial)

    @classmethod
    def of(cls, features: FeatureSet, trials: Sequence[SayTrial], seed: int) -> Tries:
        """By trial, then without the feature and without each random direction, then by example."""
        vectors: dict[Site, list[Tensor]] = {site: [] for site, _ in features.writes}
        for trial in trials:
            generator = torch.Generator().manual_seed(seed * 7919 + trial.feature)
            strength = torch.as_tensor(trial.strength)[:, None]
            own = {site: -strength * d[trial.feature].float() for site, d in features.writes}
            for site, vector in own.items():
                vectors[site].append(vector)
            for _ in range(RANDOM):
                for site, vector in own.items():
                    drawn = torch.randn(vector.shape, generator=generator)
                    length = vector.norm(dim=1, keepdim=True)
                    vectors[site].append(drawn / drawn.norm(dim=1, keepdim=True) * length)
        number = [np.full((1 + RANDOM) * len(t.rows), i) for i, t in enumerate(trials)]
        rows = [np.tile(t.rows, 1 + RANDOM) for t in trials]
        return cls(
            np.concatenate(number), np.concatenate(rows), {s: torch.cat(v) for s, v in vectors.items()}
        )

    def only(self, which: NDArray[np.int64]) -> dict[Site, Tensor]:
        """The vectors of some."""
        return {site: v[torch.from_numpy(which)] for site, v in self.vectors.items()}


def effects(
    net: Network, features: FeatureSet, trials: Sequence[SayTrial], rows: TokenRows, seed: int, work: Work
) -> list[Estimate | None]:
    """For each trial, how much more the log-odds of what is said fall without the feature than without as much of a random
    direction; intervals are over texts. None with fewer than two texts.
    """
    fit = [i for i, t in enumerate(trials) if len(np.unique(rows.texts[t.rows])) > 1]
    found: list[Estimate | None] = [None] * len(trials)
    if not fit:
        return found
    chosen = [trials[i] for i in fit]
    tries = Tries.of(features, chosen, seed)
    windows = np.unique(rows.window[tries.row])
    longest = int(windows[np.argmax(np.diff(rows.starts)[windows])])
    runner = AdditionRunner.of(net, _windows(rows, [longest]), list(tries.vectors))
    way = _ByPrompt(net, tries, rows) if runner is None else _ByWindow(runner, tries, rows)
    way.announce(net, work)
    odds = np.full(len(tries), np.nan)
    for which, logits in way.run():
        for i in np.unique(tries.trial[which]).tolist():
            part = tries.trial[which] == i
            odds[which[part]] = _log_odds(logits[torch.from_numpy(part)], chosen[i].says)
        done = int(np.isfinite(odds).sum())
        work.step(_LABEL, min(done, len(tries)), len(tries))
    for i, number in enumerate(fit):
        without, *others = odds[tries.trial == i].reshape(1 + RANDOM, -1)
        found[number] = mean_of(np.mean(others, axis=0) - without, rows.texts[chosen[i].rows].tolist())
    return found


def _log_odds(logits: Tensor, says: tuple[int, ...]) -> NDArray[np.float64]:
    """[b] the log-odds that one of the tokens comes next, which do not level off where that is nearly certain."""
    logits = logits.double().cpu()
    rest = torch.ones(logits.shape[1], dtype=torch.bool)
    rest[list(says)] = False
    return (torch.logsumexp(logits[:, ~rest], -1) - torch.logsumexp(logits[:, rest], -1)).numpy()


def _windows(rows: TokenRows, which: Sequence[int]) -> Tokens:
    """Windows of one length as rows of tokens."""
    ids = [rows.ids[int(rows.starts[w]) : int(rows.starts[w + 1])] for w in which]
    return Tokens.of_ids(torch.from_numpy(np.stack(ids).astype(np.int64)))


@dataclass(frozen=True, eq=False)
class _ByWindow:
    """Every window is run once, and of each try its own token.

    Attributes:
        runner: runs them.
        tries, rows: as above.
    """

    runner: AdditionRunner
    tries: Tries
    rows: TokenRows

    @cached_property
    def groups(self) -> list[tuple[list[int], NDArray[np.int64]]]:
        """Windows of one length, and the tries in them."""
        window = self.rows.window[self.tries.row]
        every, place = np.unique(window, return_inverse=True)
        lengths = np.diff(self.rows.starts)[every]
        found = []
        for length in np.unique(lengths).tolist():
            of_length = np.nonzero(lengths == length)[0]
            for first in range(0, len(of_length), step := max(1, _TOKENS // length)):
                some = of_length[first : first + step]
                found.append((every[some].tolist(), np.nonzero(np.isin(place, some))[0]))
        return found

    def additions(self, windows: list[int], which: NDArray[np.int64]) -> Additions:
        """The tries in some windows."""
        at = self.tries.row[which]
        place = {w: i for i, w in enumerate(windows)}
        rows = np.array([place[int(w)] for w in self.rows.window[at]], np.int64)
        return Additions(rows, self.rows.column[at], self.tries.only(which))

    def announce(self, net: Network, work: Work) -> None:
        """Say what it takes: the windows, and little beside them; seconds by pieces of this very work."""
        if not work.priced:
            return
        lengths, forwards, tokens, waves = np.diff(self.rows.starts), 0.0, 0, 0
        for windows, which in self.groups:
            additions, length = self.additions(windows, which), int(lengths[windows[0]])
            forwards += len(windows) + additions.forwards(net, length)
            tokens, waves = tokens + len(windows) * length, waves + len(additions.waves())
        timed = None
        if work.times and waves + len(self.groups) >= _WORTH:
            token, wave = self._timed()
            clock, processor = (tokens * token + waves * wave).tolist()
            timed = clock, processor
        prompts = _windows(self.rows, self.groups[-1][0])
        announce(net, prompts, work, _LABEL, forwards, timed=timed, passes=waves + len(self.groups))

    def _timed(self) -> NDArray[np.float64]:
        """[2 2] seconds by the clock and of processor time: of one token of a window, and of one pass over single tokens."""
        windows, which = self.groups[-1]
        tokens = _windows(self.rows, windows)
        few = np.concatenate(self.additions(windows, which).waves()[: 1 + _TIMED])
        part = self.additions(windows, which[few])
        for _ in range(2):
            clocks = [(time.perf_counter(), time.process_time())]
            for _, logits in self.runner.run(tokens, part):
                _log_odds(logits, (0,))
                clocks.append((time.perf_counter(), time.process_time()))
            first, *spent = np.diff(np.array(clocks), axis=0)
            if first[0] > _WARM:
                break
        wave = np.mean(spent, axis=0) if spent else first
        return np.stack([np.maximum(first - wave, 0.1 * first) / tokens.ids.numel(), wave])

    def run(self) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Which tries [b], and the logits [b v] at their tokens."""
        for windows, which in self.groups:
            for part, logits in self.runner.run(_windows(self.rows, windows), self.additions(windows, which)):
                yield which[part], logits


@dataclass(frozen=True, eq=False)
class _ByPrompt:
    """Every try is a whole run, of the tokens up to its own: where nothing of another run may stand in.

    Attributes:
        net, tries, rows: as above.
    """

    net: Network
    tries: Tries
    rows: TokenRows

    @cached_property
    def prompts(self) -> list[list[int]]:
        """Of every try, the tokens of its window up to its own."""
        starts = self.rows.starts[self.rows.window[self.tries.row]].tolist()
        ends = (self.rows.counted[self.tries.row] + 1).tolist()
        return [self.rows.ids[a:b].tolist() for a, b in zip(starts, ends, strict=True)]

    @cached_property
    def batches(self) -> list[NDArray[np.int64]]:
        """Tries that are run together: of about one length, where prompts may be padded."""
        net, lengths = self.net, np.array([len(p) for p in self.prompts])
        order = np.argsort(lengths, kind="stable")
        pads = net.certificate.pads_right is not False and (net.certificate.pads_right or net.interface.masks)
        size = max(1, _TOKENS // int(lengths.max())) if pads else 1
        return [order[first : first + size] for first in range(0, len(order), size)]

    def announce(self, net: Network, work: Work) -> None:
        """Say what it takes: so many whole runs, at the pace of prompts of about the mean length."""
        middle = sorted(self.prompts, key=len)[len(self.prompts) // 2]
        announce(net, [middle], work, _LABEL, float(len(self.tries)), passes=len(self.batches))

    def run(self) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Which tries [b], and the logits [b v] at their tokens."""
        for which in self.batches:
            edits = [AddedVectors(site, v) for site, v in self.tries.only(which).items()]
            run = self.net.run([self.prompts[i] for i in which.tolist()], edits=edits)
            assert run.tokens is not None
            assert run.logits is not None
            last = run.tokens.columns(torch.tensor([-1]))[:, 0]
            yield which, run.logits[torch.arange(len(which)), last.to(run.logits.device)]


@dataclass(frozen=True, eq=False)
class AddedVectors:
    """An edit that adds a vector of its own to the last token of each row.

    Attributes:
        site: where.
        vectors: [b d].
    """

    site: Site
    vectors: Tensor

    def bind(self, network: Any) -> Sequence[tuple[Site, EditFunction]]:
        """The site, and the function on its value."""
        del network

        def edit(value: Tensor, here: Here) -> Tensor:
            found = here.index(-1, value.shape[1], value.device)
            assert found is not None
            changed = value.clone()
            changed[found[0], found[1]] += self.vectors.to(value)[found[0]]
            return changed

        return [(self.site, edit)]
