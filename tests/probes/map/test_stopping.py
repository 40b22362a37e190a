"""Work that is stopped keeps what is finished, and says that it is not all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from xor_networks import Specimen

import cutaway
from cutaway.errors import BadInput, Stopped
from cutaway.probes import ProbeData, Probing, probe, use
from cutaway.probes.map.verdict import UNDECIDED
from cutaway.results import Progress, Work


def stopping(label: str, done: int) -> Work:
    """Work that is interrupted at a step."""

    def listen(progress: Progress) -> None:
        if (progress.label, progress.done) == (label, done):
            raise KeyboardInterrupt

    return Work(listen)


@pytest.fixture
def data(made: Specimen) -> ProbeData:
    return ProbeData(made.prompts, made.labels["used"], name="used")


def test_finished_places_are_kept(net: cutaway.Network, data: ProbeData, tmp_path: Path) -> None:
    places = {"at": "resid_post", "by": ("layer", "position"), "permutations": 20, "untrained": False}
    whole = probe(net, data, **places)  # type: ignore[arg-type]
    part = probe(net, data, **places, work=stopping("probing", 2))  # type: ignore[arg-type]
    assert whole.complete
    assert not part.complete
    assert part.finding.word == UNDECIDED
    assert part.finding.claims[0].verdict == "inconclusive"
    assert "Stopped: 2 of 6 places are finished." in part.data.attrs["notes"]
    scores = part.data["score"].values.ravel()
    assert np.isfinite(scores).tolist() == [True, True, False, False, False, False]
    assert np.array_equal(scores[:2], whole.data["score"].values.ravel()[:2])
    with pytest.raises(BadInput, match="stopped before resid_post.1"):
        part.probe(layer=1, position=2)
    again = Probing.load(part.save(tmp_path / "part"))
    assert not again.complete
    assert again.to_dict() == part.to_dict()
    assert [p is None for p in again.probes] == [False, False, True, True, True, True]
    assert part.plot().data
    assert "Stopped" in part._repr_html_()
    assert part.page().sections


def test_a_map_whose_controls_were_stopped_is_not_decided(net: cutaway.Network, data: ProbeData) -> None:
    part = probe(net, data, permutations=20, work=stopping("reading random weights", 240))
    assert not part.complete
    assert part.finding.word == UNDECIDED
    assert np.isfinite(part.data["score"].values).all()
    assert np.isfinite(part.data["tokens"].values).all()
    assert np.isnan(part.data["untrained"].values).all()


def test_nothing_finished_is_nothing_kept(net: cutaway.Network, data: ProbeData) -> None:
    with pytest.raises(Stopped):
        probe(net, data, permutations=20, work=stopping("reading", 240))
    probing = probe(net, data, permutations=20, untrained=False)
    work = Work()
    work.stop()
    with pytest.raises(Stopped):
        use(net, probing, data, work=work)
    with pytest.raises(Stopped):
        cutaway.leace(net, data, at="resid_post.0", work=work)
