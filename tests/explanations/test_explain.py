from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import cutaway
from cutaway.behaviours import Behaviour, exchange_answers
from cutaway.errors import BadBehaviour, NotPerformed, SaveFailed
from cutaway.explanations import SearchLimits
from cutaway.explanations.identify import identify
from cutaway.network import Network
from cutaway.network.parts import Part, parts_of
from cutaway.results import Progress, Work, load
from cutaway.trials import Bench, PartSet, controls


def test_the_written_head_is_found_and_supported(explanation: cutaway.Explanation, mover: Part) -> None:
    assert explanation.verdict == "supported", str(explanation)
    assert explanation.mechanism is not None
    assert explanation.mechanism.members == (mover,)
    assert explanation.trial is not None
    assert explanation.trial.kept.value == pytest.approx(1, abs=0.15)
    assert explanation.trial.left.value == pytest.approx(0, abs=0.15)
    assert len(explanation.trial.kept_random) >= 20


def test_every_control_comes_out_as_expected(explanation: cutaway.Explanation) -> None:
    controls = {control.name: control for control in explanation.claim.controls}
    assert set(controls) == {
        "Sham edit",
        "Random weights",
        "Contrast beside random weights",
        "Shuffled answers",
    }
    assert all(control.passed for control in controls.values())
    assert "refused" in controls["Random weights"].sentence


def test_the_map_says_where_the_name_is(explanation: cutaway.Explanation) -> None:
    restored = explanation.maps["resid_pre, restore"].mean
    assert restored.dims == ("form", "layer", "position")
    assert restored.sel(layer=1, position=1).values == pytest.approx(1, abs=0.2)
    assert restored.sel(layer=2, position=4).values == pytest.approx(1, abs=0.2)
    assert (abs(restored.sel(layer=2, position=1)) < 0.2).all()


def test_the_random_network_is_refused_with_the_figures(written: Network, names: Behaviour) -> None:
    with pytest.raises(NotPerformed, match=r"answers \d+ of 48"):
        cutaway.explain(written.randomized(1), names)


def test_forcing_a_random_network_is_not_supported(written: Network, names: Behaviour) -> None:
    forced = cutaway.explain(written.randomized(1), names, force=True, controls=False)
    assert forced.verdict != "supported"
    assert any("Forced" in note for note in forced.claim.notes)
    assert "does not perform" in forced.headline


def test_without_controls_nothing_is_supported(written: Network, names: Behaviour) -> None:
    assert cutaway.explain(written, names, controls=False).verdict == "inconclusive"


def test_it_repeats_exactly(written: Network, names: Behaviour, explanation: cutaway.Explanation) -> None:
    again = cutaway.explain(written, names, seed=0, controls=False)
    assert again.trial is not None
    assert explanation.trial is not None
    assert again.trial.kept == explanation.trial.kept
    assert again.trial.left_random == explanation.trial.left_random


def test_ctrl_c_leaves_what_is_finished(written: Network, names: Behaviour, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if "growing the set" in progress.label:
            raise KeyboardInterrupt

    part = cutaway.explain(written, names, work=Work(stop))
    assert not part.complete
    assert part.verdict == "inconclusive"
    assert part.mechanism is None
    assert {"resid_pre, restore", "z, corrupt"} <= set(part.maps)
    assert "partial" in (part.save(tmp_path / "part") / "report.html").read_text(encoding="utf-8").lower()


def test_unequal_pairs_are_refused(written: Network, names: Behaviour) -> None:
    from dataclasses import replace

    odd = replace(names, corrupted_ids=tuple(ids[:-1] for ids in names.corrupted_ids))
    with pytest.raises(BadBehaviour, match="equal length"):
        cutaway.explain(written, odd, force=True)


def test_sets_on_the_bench_equal_bare_hooks(written: Network, names: Behaviour, mover: Part) -> None:
    few = names.take(range(4))
    bench = Bench.of(written, few, 0)
    chosen = {mover, Part("mlp", 2), Part("head", 0, 5)}
    kept, left = bench.keep_only([chosen])[0], bench.remove([chosen])[0]
    everything = set(bench.parts)
    for row in range(few.n):
        assert kept[row] == pytest.approx(_by_hand(written, few, row, everything - chosen), abs=1e-4)
        assert left[row] == pytest.approx(_by_hand(written, few, row, chosen), abs=1e-4)
    assert bench.keep_only([everything])[0] == pytest.approx(bench.ends.clean.metric, abs=1e-5)
    assert bench.restore([[]])[0] == pytest.approx(bench.ends.corrupted.metric, abs=1e-5)


def _by_hand(net: Network, pairs: Behaviour, row: int, replaced: set[Part]) -> float:
    """The metric on a clean prompt with these components replaced by the corrupted run, by bare hooks on the bare model."""
    model, kept, handles = net.model, {}, []
    width = model.config.n_embd // model.config.n_head

    def keep(name):
        def note(_module, args, out):
            kept[name] = (args[0].clone(), out.clone())

        return note

    for layer, block in enumerate(model.transformer.h):
        handles.append(block.attn.c_proj.register_forward_hook(keep((layer, "head"))))
        handles.append(block.mlp.register_forward_hook(keep((layer, "mlp"))))
    with torch.no_grad():
        model(torch.tensor([pairs.corrupted_ids[row]]))
    for handle in handles:
        handle.remove()
    handles = []

    def heads(layer):
        def change(_module, args):
            value = args[0].clone()
            for part in replaced:
                if (part.layer, part.kind) == (layer, "head"):
                    where = slice(part.index * width, (part.index + 1) * width)
                    value[..., where] = kept[(layer, "head")][0][..., where]
            return (value,)

        return change

    for layer, block in enumerate(model.transformer.h):
        handles.append(block.attn.c_proj.register_forward_pre_hook(heads(layer)))
        if Part("mlp", layer) in replaced:
            handles.append(
                block.mlp.register_forward_hook(lambda _m, _a, _o, layer=layer: kept[(layer, "mlp")][1])
            )
    with torch.no_grad():
        logits = model(torch.tensor([pairs.clean_ids[row]])).logits[0, -1]
    for handle in handles:
        handle.remove()
    return float(logits[pairs.right[row][0]] - logits[pairs.wrong[row][0]])


def test_two_heads_that_stand_in_for_each_other_are_both_found(
    written: Network, names: Behaviour, mover: Part
) -> None:
    import copy

    model = copy.deepcopy(written.model)
    with (
        torch.no_grad()
    ):  # a second mover in a later layer that does the same work, so that losing one costs little
        width, to, back = 8, 5 * 8, mover.index * 8
        old, new = model.transformer.h[1].attn, model.transformer.h[2].attn
        for block in range(3):
            new.c_attn.weight[:, 64 * block + to : 64 * block + to + width] = old.c_attn.weight[
                :, 64 * block + back : 64 * block + back + width
            ]
        new.c_proj.weight[to : to + width] = old.c_proj.weight[back : back + width]
    net = cutaway.open(model)
    twin = Part("head", 2, 5)
    bench = Bench.of(net, names.discovery, 0)
    scores = {part: 1.0 if part in (mover, twin) else 0.0 for part in parts_of(net)}
    found = identify(bench, scores, SearchLimits())
    assert set(found.members) == {mover, twin}
    assert found.left < 0.2


def test_random_sets_match_in_size_and_kind(written: Network, mover: Part) -> None:
    everything = parts_of(written)
    candidate = PartSet((mover, Part("mlp", 0)), everything)
    sets = [s.members for s in candidate.like_it(np.random.default_rng(3), 30)]
    assert len(set(sets)) == 30
    assert not [s for s in sets if set(s) == set(candidate.members)]
    assert all(sorted(part.kind for part in s) == ["head", "mlp"] for s in sets)
    assert PartSet(everything, everything).like_it(np.random.default_rng(3), 30) == []


def test_exchanged_answers_are_half(names: Behaviour) -> None:
    shuffled = exchange_answers(names, 0)
    swapped = np.array([a != b for a, b in zip(shuffled.right, names.right, strict=True)])
    for held in (False, True):
        half = swapped[np.array(names.held) == held]
        assert abs(half.mean() - 0.5) <= 1 / len(half)
    assert shuffled.held == names.held


def test_saved_results_are_complete(explanation: cutaway.Explanation, tmp_path: Path) -> None:
    folder = explanation.save(tmp_path / "names.html")
    assert folder == tmp_path / "names"
    assert (tmp_path / "names.html").is_file()
    manifest = json.loads((tmp_path / "names" / "manifest.json").read_text(encoding="utf-8"))
    assert cutaway.Claim.from_dict(manifest["claim"]) == explanation.claim
    assert manifest["provenance"]["seed"] == 0
    again = load(folder)
    assert set(again.maps) == set(explanation.maps)
    assert again.maps["z, restore"].mean.equals(explanation.maps["z, restore"].mean)
    for name in (
        "claim",
        "behaviour",
        "performance",
        "pairs",
        "mechanism",
        "trial",
        "unexplained",
        "limits",
        "certificate",
    ):
        assert getattr(again, name) == getattr(explanation, name), name
    for name in ("seconds", "provenance", "complete", "command", "headline", "reads_and_writes"):
        assert getattr(again, name) == getattr(explanation, name), name
    assert again.circuit.claim == explanation.circuit.claim
    assert again.circuit.circuit.edges == explanation.circuit.circuit.edges
    assert again.to_pandas().equals(explanation.to_pandas())
    assert again.page().headline == explanation.page().headline
    folder = explanation.save(tmp_path / "folder")
    assert folder == tmp_path / "folder"
    assert (tmp_path / "folder" / "report.html").is_file()
    assert (tmp_path / "folder" / "components.csv").is_file()
    assert isinstance(load(folder), cutaway.Explanation)


def test_a_failed_save_says_so_and_loses_nothing(explanation: cutaway.Explanation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SaveFailed):
        explanation.save(tmp_path / "file" / "out")
    assert (explanation.save(tmp_path / "out") / "report.html").is_file()


def test_no_sentence_was_left_unfilled(explanation: cutaway.Explanation) -> None:
    texts = [
        explanation.headline,
        str(explanation.claim),
        *(text for point in explanation.unexplained for text in point),
    ]
    page = explanation.page()
    texts += [page.lead, *(section.lead for section in page.sections)]
    texts += [
        block.caption for section in page.sections for block in section.blocks if hasattr(block, "caption")
    ]
    assert not [text for text in texts if "{" in text or "}" in text]


def test_what_is_left_open_is_said(explanation: cutaway.Explanation) -> None:
    heads = {what for what, _ in explanation.unexplained}
    assert {"Left over.", "Positions.", "How the parts are wired.", "Other prompts."} <= heads


def test_stories_do_not_do_the_indirect_object_task(shared: Path) -> None:
    folder = shared / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip("the story model (models/stories260K of the folder of real inputs) is absent")
    net = cutaway.open(folder)
    with pytest.raises(NotPerformed, match=r"answers \d+ of \d+ prompts"):
        cutaway.explain(net, "ioi")


def test_only_refusals_of_the_behaviour_count_for_a_control(written: Network, names: Behaviour) -> None:
    from cutaway.errors import OutOfMemory

    for error, passed in ((BadBehaviour("No gap."), True), (OutOfMemory("Full."), None)):

        def stop(*_: object, error: Exception = error) -> controls.Outcome:
            raise error

        assert controls.shuffled_answers(written, names, stop, 0, Work()).passed is passed


def test_a_control_says_when_performance_alone_decided(
    written: Network, names: Behaviour, explanation: cutaway.Explanation
) -> None:
    from dataclasses import replace

    tests = explanation.claim.evidence
    not_performed = (replace(tests[0], passed=False), *tests[1:])
    outcome = controls.Outcome(not_performed, "1 of 36 components")
    control = controls.shuffled_answers(written, names, lambda *_: outcome, 0, Work())
    assert control.passed is True
    assert "refuted (by the interventions alone: supported)" in control.sentence
    assert "Only the test whether it does the behaviour stood in the way." in control.sentence
    outcome = controls.Outcome(tests, "1 of 36 components")
    assert controls.shuffled_answers(written, names, lambda *_: outcome, 0, Work()).passed is False


def test_what_is_no_component_keeps_the_claim_from_being_supported(
    written: Network, names: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cutaway.explanations import pipeline, unexplained
    from cutaway.network.parts import uncovered

    assert uncovered(written) == ()
    layers_with = Network.layers_with
    monkeypatch.setattr(
        Network,
        "layers_with",
        lambda net, name, stack="": [
            layer for layer in layers_with(net, name, stack) if (name, layer) != ("mlp_write", 2)
        ],
    )
    assert uncovered(written) == ("MLP in layer 2",)
    monkeypatch.undo()
    for module in (pipeline, unexplained):
        monkeypatch.setattr(module, "uncovered", lambda _: ("MLP in layer 2",))
    found = cutaway.explain(written, names, controls=True, limits=SearchLimits())
    assert all(e.passed for e in found.claim.evidence)
    assert all(c.passed for c in found.claim.controls)
    assert found.verdict == "inconclusive"
    assert any("MLP in layer 2" in note for note in found.claim.notes)
    assert any(what == "Not among the components." for what, _ in found.unexplained)


def test_no_results_without_their_report_are_left(
    explanation: cutaway.Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cutaway.explanations import explanation as module

    def full(*_: object) -> None:
        raise SaveFailed("The disk is full.")

    monkeypatch.setattr(module, "write", full)
    monkeypatch.setattr(module, "add_page", full)
    for name in ("out", "out.html"):
        with pytest.raises(SaveFailed):
            explanation.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
