"""What the version before saved of probes still loads, with the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

import cutaway
from cutaway.errors import BadFormat
from cutaway.probes import Eraser, Probe, Probing, Use
from cutaway.probes.use.alignment import Alignment
from cutaway.results import Result

SAVED = Path(__file__).parent / "saved_before" / "probes"


def test_a_map() -> None:
    probing = cutaway.load(SAVED / "probing") if hasattr(cutaway, "load") else Probing.load(SAVED / "probing")
    assert isinstance(probing, Probing)
    assert probing.headline() == "'note' is encoded at resid_post.0 (AUROC 1.000 [1.000, 1.000])"
    assert [c.verdict for c in probing.finding.claims] == ["supported"]
    assert probing.data["score"].values.ravel().tolist() == [1.0, 1.0]
    assert probing.complete
    assert probing.outputs is not None
    assert float(probing.outputs[0, 0, 0]) == pytest.approx(0.9998796546786848)
    assert probing.probe(layer=0).about["cosine"] == pytest.approx(0.9625740623705111)
    assert "Where it is encoded" in [s.title for s in probing.page().sections]


def test_a_probe() -> None:
    """Its manifest says `kind` of the way it was fitted."""
    probe = Probe.load(SAVED / "probe")
    assert (probe.method, probe.label, str(probe.at), probe.position) == ("ridge", "note", "resid_post.0", -1)
    assert float(probe.weights.sum()) == pytest.approx(0.043461347117152216)
    assert probe.about["score"] == 1.0
    assert probe.provenance.network == ""


def test_causal_tests() -> None:
    used = Use.load(SAVED / "use")
    assert (used.verdict, used.claim.verdict) == ("encoded and used", "supported")
    assert used.effect("flip").share.value == pytest.approx(0.9243946762404225)
    assert len(used.effect("flip").others) == 80


def test_an_alignment_and_an_eraser() -> None:
    alignment = Alignment.load(SAVED / "alignment")
    assert (alignment.accuracy.value, alignment.size) == (0.8, 1)
    assert float(alignment.basis.sum()) == pytest.approx(-0.3484914273440633)
    eraser = Eraser.load(SAVED / "eraser")
    assert (eraser.rank, eraser.at) == (1, None)
    assert float(eraser.right.sum()) == pytest.approx(0.04413686643690329)


@pytest.mark.parametrize("kind", [Probing, Probe, Use, Alignment, Eraser])
def test_each_is_a_result_that_is_saved_as_it_is_now(kind: type, tmp_path: Path) -> None:
    old = kind.load(SAVED / kind.kind)  # type: ignore[attr-defined]
    assert isinstance(old, Result)
    again = kind.load(old.save(tmp_path / "again"))  # type: ignore[attr-defined]
    assert again.to_dict() == old.to_dict()
    with pytest.raises(BadFormat, match="cutaway.load"):
        (Eraser if kind is Probe else Probe).load(tmp_path / "again")
