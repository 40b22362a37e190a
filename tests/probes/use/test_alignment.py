"""The search for the subspace that decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from xor_networks import ANSWERS, Specimen

import cutaway
from cutaway.errors import BadInput
from cutaway.probes import ProbeData, ProbeOptions, probe
from cutaway.probes.use.alignment import Alignment, SearchOptions, align

QUICK = ProbeOptions(permutations=20, untrained=False, n_boot=60)


YES_NO = {"0": ANSWERS["no"], "1": ANSWERS["yes"]}


@pytest.mark.parametrize("boundless", [False, True])
def test_alignment_finds_the_subspace_that_decides(
    net: cutaway.Network, made: Specimen, boundless: bool, tmp_path: Path
) -> None:
    data = ProbeData(made.prompts, made.labels["used"], name="used")
    found = probe(net, data, at="resid_post.0", options=QUICK)
    done = align(net, found, data, answers=YES_NO, options=SearchOptions(boundless=boundless, random=8))
    assert done.accuracy.value > 0.95
    assert done.claim.verdict == "supported"
    assert done.size <= (4 if boundless else 1)
    again = Alignment.load(done.save(tmp_path / "found"))
    assert str(again) == str(done)
    source = net.run([made.prompts[0]], keep=["resid_post.0"])
    net.run([made.prompts[1]], edits=[again.interchange(source, pos=-1)])


def test_alignment_through_an_idle_path_is_not_believed(net: cutaway.Network, made: Specimen) -> None:
    """A search can steer the output by a variable that nothing reads; exchanging the whole vector does not."""
    data = ProbeData(made.prompts, made.labels["unread"], name="unread")
    found = probe(net, data, at="resid_post.0", options=QUICK)
    done = align(net, found, data, answers=YES_NO, options=SearchOptions(random=8))
    assert done.claim.verdict != "supported"
    with pytest.raises(BadInput, match="does not fit 48"):
        align(net, found, data, answers=YES_NO, options=SearchOptions(size=49))
