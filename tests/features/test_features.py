"""Activations over many texts: top examples against brute force on the bare model; sites written to disk and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertModel

import cutaway
from cutaway.errors import (
    BadAddress,
    BadFormat,
    BadInput,
    CorruptFile,
    CutawayError,
    NotFinite,
    NotFound,
    SaveFailed,
    SiteUnavailable,
    Stopped,
)  # fmt: skip
from cutaway.features import texts
from cutaway.features.examples import Extremes, Seen
from cutaway.features.texts import TextWindow
from cutaway.network import Network, textsets
from cutaway.results import Budget, Progress, Work

TEXTS = [
    "Mary was sad because", "John and Mary saw a dog", "Mary was sad because she", "", "John was",
    "Mary had a ball and John",
    "the dog saw Mary and the dog saw John",
] * 3  # fmt: skip


#: No two begin alike, so that no two tokens have the same value.
UNLIKE = ["Mary was sad because she", "John and Mary saw a dog", "the dog saw Mary and the dog saw John"]


@pytest.fixture(scope="module")
def tales() -> Network:
    return cutaway.open("zoo:tales")


def by_hand(net: Network, texts: list[str], module: Any, read: Any) -> list[tuple[float, int, int]]:
    """(value, text, position) of every token but special ones, from a hook on the bare model, one text at a time."""
    found: list[tuple[float, int, int]] = []
    special = set(net.tokenizer.all_special_ids)
    seen: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _m, args, out: seen.append(read(args, out)))
    for number, text in enumerate(texts):
        if not text:
            continue
        ids = net.tokenizer(text)["input_ids"]
        with torch.no_grad():
            net.model(torch.tensor([ids]))
        found += [(float(v), number, p) for p, v in enumerate(seen.pop()[0]) if ids[p] not in special]
    handle.remove()
    return found


def test_the_strongest_tokens_of_a_neuron_are_those_of_brute_force(tales: Network) -> None:
    every = by_hand(
        tales, TEXTS, tales.model.model.layers[2].mlp.down_proj, lambda args, _out: args[0][..., 7]
    )
    found = cutaway.top_examples(tales, iter(TEXTS), of="n2.7", k=9, one_per_text=False)["n2.7"]
    for examples, sign in ((found.top, -1), (found.bottom, 1)):
        wanted = sorted((sign * round(v, 4), t, p) for v, t, p in every)[:9]
        assert [(e.text, e.position) for e in examples] == [(t, p) for _, t, p in wanted]
        assert np.allclose([e.activation for e in examples], [sign * v for v, _, _ in wanted], atol=1e-4)
    values = np.array([v for v, _, _ in every])
    assert found.mean == pytest.approx(values.mean(), abs=1e-5)
    assert (found.low, found.high) == pytest.approx((values.min(), values.max()), abs=1e-5)
    assert found.positive == pytest.approx((values > 0).mean())


def test_one_of_each_text_and_the_earlier_of_equal_ones(tales: Network) -> None:
    """The texts stand there three times, so that every value does."""
    every = by_hand(
        tales, TEXTS, tales.model.model.layers[1], lambda _args, out: _stream(out)[..., :3].sum(-1)
    )
    vector = torch.zeros(tales.d_model or 0)
    vector[:3] = 1
    found = cutaway.top_examples(tales, TEXTS, of=("resid_post.1", vector), k=8)[0]
    best: dict[int, tuple[float, int]] = {}
    for value, text, position in every:
        if text not in best or value > best[text][0] + 1e-5:
            best[text] = value, position
    wanted = sorted(best, key=lambda t: (-round(best[t][0], 4), t))[:8]
    assert [e.text for e in found.top] == wanted
    assert [e.position for e in found.top] == [best[t][1] for t in wanted]
    example = found.top[0]
    assert example.activations[example.at] == example.activation
    tokens = tales.encode(TEXTS[example.text]).strings()
    assert example.tokens[example.at] == tokens[example.position]
    assert "".join(example.tokens) in "".join(tokens)


def _stream(out: Any) -> torch.Tensor:
    return out[0] if isinstance(out, tuple) else out


def test_ties_and_batches_make_no_difference() -> None:
    """Whatever the batches, and with many equal values, the same as sorting everything."""
    generator = np.random.default_rng(0)
    for one_per_text in (True, False):
        for _ in range(30):
            lengths = generator.integers(1, 6, 12)
            windows = [TextWindow(t, 0, tuple(range(n))) for t, n in enumerate(lengths)]
            values = [generator.integers(0, 4, n).astype(np.float32) for n in lengths]
            best = Extremes(5, 1, one_per_text, 1)
            start = 0
            while start < 12:
                end = min(12, start + int(generator.integers(1, 5)))
                part = range(start, end)
                whole = np.zeros((end - start, int(lengths.max())), np.float32)
                for row, t in enumerate(part):
                    whole[row, : lengths[t]] = values[t]
                row = np.concatenate([[r] * lengths[t] for r, t in enumerate(part)]).astype(int)
                column = np.concatenate([np.arange(lengths[t]) for t in part])
                text, flat = row + start, np.concatenate([values[t] for t in part])
                best.add(Seen(windows[start:end], row, column, text, column, flat, whole))
                start = end
            every = sorted((-v, t, p) for t, vs in enumerate(values) for p, v in enumerate(vs))
            if one_per_text:
                every = [x for i, x in enumerate(every) if x[1] not in {y[1] for y in every[:i]}]
            assert [(-p.value, p.text, p.position) for p in best.places] == every[:5]


def test_heads_directions_and_several_at_once(tales: Network) -> None:
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(tales.d_model or 0, generator=generator)
    of = {
        "head": "a2.h1",
        "along": ("a2.h1", v),
        "z": ("z.2", torch.ones(4, 32)),
        "both": ("resid_post.3", torch.stack([v, -v])),
    }
    found = cutaway.top_examples(tales, TEXTS, of=of, k=3)
    assert [f.name for f in found.features] == ["head", "along", "z", "both #0", "both #1"]
    for name in ("head", "along", "z", "both #0"):
        example = found[name].top[0]
        run = tales.run(TEXTS[example.text], keep=["head_out.2", "z.2", "resid_post.3"])
        at = example.position
        wanted = {
            "head": run["head_out.2"][0, at, 1].norm(), "along": run["head_out.2"][0, at, 1] @ v,
            "z": run["z.2"][0, at].sum(),
            "both #0": run["resid_post.3"][0, at] @ v,
        }[name]  # fmt: skip
        assert example.activation == pytest.approx(float(wanted), rel=1e-4)
    assert found["both #0"].high == pytest.approx(-found["both #1"].low, rel=1e-5)


def test_special_tokens_padding_and_first_tokens_count_only_where_asked(tales: Network) -> None:
    bos = tales.tokenizer.bos_token
    plain = cutaway.top_examples(tales, TEXTS, of="n0.1", k=50, one_per_text=False, per_quantile=50)
    assert bos not in set(plain.to_pandas()["token"])
    n = sum(tales.encode(t).width for t in TEXTS if t)
    assert plain.tokens == n - sum(bool(t) for t in TEXTS)
    assert plain.empty == 3
    special = cutaway.top_examples(tales, TEXTS, of="n0.1", special=True)
    assert special.tokens == n
    assert cutaway.top_examples(tales, TEXTS, of="n0.1", skip=2, special=True).tokens == n - 2 * 18


def test_long_texts_are_read_in_pieces(tales: Network) -> None:
    ids = tales.encode(" ".join(TEXTS)).row_ids(0)
    found = cutaway.top_examples(tales, [ids], of="n1.3", k=4, length=8, one_per_text=False)[0]
    every = []
    for start in range(0, len(ids), 8):
        act = tales.run([ids[start : start + 8]], keep=["mlp_act.1"])["mlp_act.1"][0, :, 3]
        every += [(-round(float(v), 4), start + i) for i, v in enumerate(act) if start + i]
    assert [e.position for e in found.top] == [p for _, p in sorted(every)[:4]]


def test_the_sample_covers_all_strengths_and_does_not_depend_on_batches(tales: Network) -> None:
    whole = cutaway.top_examples(tales, UNLIKE, of="n2.7", seed=1)
    tight = cutaway.top_examples(tales, UNLIKE, of="n2.7", seed=1, work=Work(budget=Budget(memory=1)))
    first, second = whole[0], tight[0]
    assert [(e.text, e.position) for part in first.sample for e in part] == [
        (e.text, e.position) for part in second.sample for e in part
    ]
    assert [(e.text, e.position) for e in first.top] == [(e.text, e.position) for e in second.top]
    means = [np.mean([e.activation for e in part]) for part in first.sample]
    assert means == sorted(means)
    assert list(first.ends) == sorted(first.ends)


def test_top_examples_are_kept_and_shown(tales: Network, tmp_path: Path) -> None:
    found = cutaway.top_examples(tales, TEXTS, of="n2.7,n2.8", k=3)
    again = cutaway.load(found.save(tmp_path / "found"))
    assert again.to_pandas().equals(found.to_pandas())
    from cutaway.reports import render

    page = render(again.page())
    assert "background:#" in page
    assert "quantile 5 of 5" in page.lower()
    assert again.plot().data
    assert "n2.7" in found._repr_html_()


def test_texts_from_files_and_data_sets(tales: Network, tmp_path: Path) -> None:
    texts = [t for t in TEXTS if t][:4]
    lines, rows = tmp_path / "texts.txt", tmp_path / "texts.jsonl"
    lines.write_text("\n".join([*texts, ""]), encoding="utf-8")
    rows.write_text("\n".join(json.dumps({"text": t}) for t in texts), encoding="utf-8")
    wanted = cutaway.top_examples(tales, texts, of="n2.7").to_pandas()
    for given in (lines, rows, [{"text": t} for t in texts], (t for t in texts)):
        assert cutaway.top_examples(tales, given, of="n2.7").to_pandas().equals(wanted)
    assert cutaway.top_examples(tales, texts[0], of="n2.7").texts == 1
    with pytest.raises(NotFound, match=r"texts\.txt"):
        cutaway.top_examples(tales, tmp_path / "text.txt", of="n2.7")
    rows.write_text('{"txt": "a"}')
    with pytest.raises(BadInput, match="no field text"):
        cutaway.top_examples(tales, rows, of="n2.7")
    pd.DataFrame({"text": texts}).to_csv(tmp_path / "a.csv", index=False)
    assert cutaway.top_examples(tales, tmp_path / "a.csv", of="n2.7").texts == len(texts)
    (tmp_path / "a.csv").write_text("a")
    with pytest.raises(BadInput, match="holds no text"):
        cutaway.top_examples(tales, tmp_path / "a.csv", of="n2.7")
    (tmp_path / "a.md").write_text("a")
    with pytest.raises(BadFormat, match=r"\.txt"):
        cutaway.top_examples(tales, tmp_path / "a.md", of="n2.7")


def test_files_of_lines_are_read_alike_line_by_line_and_whole(tmp_path: Path) -> None:
    """A mark at the beginning is no text, a line ends where the system ends it, and what is wrong is said with its line."""
    plain, rows = tmp_path / "a.txt", tmp_path / "a.jsonl"
    plain.write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo \xe2\x80\xa8 half\n")
    assert textsets.texts_in(plain) == ["one", "two \u2028 half"]
    assert list(texts.texts_in(plain)) == ["one", "", "two \u2028 half"]
    rows.write_text('{"text": "one"}\n\n"two"\n')
    assert list(texts.texts_in(rows)) == ["one", "two"]
    rows.write_text('{"text": "one"}\n{"text": "tw\n')
    for read in (textsets.texts_in, lambda path: list(texts.texts_in(path))):
        with pytest.raises(BadFormat, match=r"Line 2 of .*a\.jsonl cannot be read"):
            read(rows)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"of": "n2.9999"}, BadAddress, "neurons 0 to"),
        ({"of": "a2.h9"}, BadAddress, "heads 0 to"),
        ({"of": "n9.0"}, CutawayError, "9"),
        ({"of": "m2"}, BadInput, "no neuron, feature or head"),
        ({"of": "resid_post.1"}, BadInput, "direction"),
        ({"of": []}, BadInput, "nothing to read"),
        ({"of": ["n2.7", "n2.7"]}, BadInput, "twice"),
        ({"of": ("resid_post.1", torch.zeros(128))}, BadInput, "zero"),
        ({"of": ("resid_post.1", torch.ones(5))}, BadInput, "shape"),
        ({"of": ("resid_post.1", torch.full((128,), float("nan")))}, NotFinite, "NaN"),
        ({"of": ("resid_post", torch.ones(128))}, BadAddress, "4 sites"),
        ({"of": ("resid_pots.1", torch.ones(128))}, NotFound, "resid_post"),
        ({"of": ("pattern.1", torch.ones(128))}, BadInput, "each token"),
        ({"k": 0}, BadInput, "k=0"),
        ({"length": 0}, BadInput, "length"),
        ({"skip": -1}, BadInput, "skip"),
    ],
)
def test_what_is_nothing_to_read(tales: Network, options: Any, error: type[CutawayError], said: str) -> None:
    with pytest.raises(error, match=said):
        cutaway.top_examples(tales, TEXTS, **{"of": "n2.7", **options})


@pytest.mark.parametrize("texts", [[], [""], ["  "], "", {"text": "a"}, 5, [5.5], [{"words": "a"}]])
def test_what_holds_no_texts(tales: Network, texts: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        cutaway.top_examples(tales, texts, of="n2.7")
    with pytest.raises(BadInput):
        cutaway.activations(tales, texts, at="embed", folder=tmp_path / "new")


def test_stopped_work_comes_back_as_far_as_it_came(tales: Network) -> None:
    work: Work

    def listen(progress: Progress) -> None:
        if progress.label == "reading texts" and progress.price is None:
            work.stop()

    work = Work(listen, Budget(memory=1))
    found = cutaway.top_examples(tales, TEXTS, of="n2.7", work=work)
    assert not found.complete
    assert found.tokens < 30
    ended = Work()
    ended.stop()
    with pytest.raises(Stopped):
        cutaway.top_examples(tales, TEXTS, of="n2.7", work=ended)


# activations -----------------------------------------------------------------------------------------------------


def test_what_is_read_back_is_what_the_network_gives(tales: Network, tmp_path: Path) -> None:
    made = cutaway.activations(tales, TEXTS, at=["resid_post.2", "z.1"], folder=tmp_path / "acts")
    kept = cutaway.load(tmp_path / "acts")
    assert kept.complete
    assert len(kept) == len(made) == kept.array("z.1").shape[0]
    table = kept.rows()
    for i in (0, 5, len(kept) - 1, -1):
        row = table.iloc[i]
        run = tales.run(TEXTS[row["text"]], keep=["resid_post.2", "z.1"])
        assert run.tokens.strings()[row["position"]] == row["token"]
        assert torch.allclose(
            kept.array("resid_post.2")[i], run["resid_post.2"][0, row["position"]], atol=1e-5
        )
        assert torch.allclose(kept.array("z.1")[i], run["z.1"][0, row["position"]], atol=1e-5)
    array = kept.array(("resid_post", 2))
    whole = array[:]
    assert torch.equal(torch.cat(list(array.batches(7))), whole)
    assert torch.equal(array[[9, 2, 2]], whole[[9, 2, 2]])
    assert torch.equal(array[3:11, :4], whole[3:11, :4])
    mask = table["token"] == " Mary"
    assert torch.equal(array[mask.to_numpy()], whole[torch.tensor(mask.to_numpy())])
    assert np.array_equal(np.asarray(array), whole.numpy())
    assert kept.mean_length["resid_post.2"] == pytest.approx(float(whole.norm(dim=1).mean()), rel=1e-5)
    assert tales.tokenizer.bos_token not in set(table["token"])
    assert kept.page().title
    kept.verify()
    assert cutaway.load(kept.save(tmp_path / "copy")).array("z.1")[4].equal(kept.array("z.1")[4])


def test_it_goes_on_where_it_was_stopped(tales: Network, tmp_path: Path) -> None:
    shards: list[int] = []
    work: Work

    def listen(progress: Progress) -> None:
        shards.append(progress.done)
        if len(shards) == 4:
            work.stop()

    work = Work(listen, Budget(memory=1))
    part = cutaway.activations(tales, TEXTS, at="resid_post.1", folder=tmp_path / "acts", work=work)
    assert not part.complete
    assert 0 < len(part.shards) < 6
    first = (tmp_path / "acts" / part.shards[0].file).stat().st_mtime_ns
    whole = cutaway.activations(tales, TEXTS, at="resid_post.1", folder=tmp_path / "acts")
    assert whole.complete
    assert (tmp_path / "acts" / part.shards[0].file).stat().st_mtime_ns == first
    once = cutaway.activations(tales, TEXTS, at="resid_post.1", folder=tmp_path / "once")
    assert torch.allclose(whole.array("resid_post.1")[:], once.array("resid_post.1")[:], atol=1e-5)
    assert whole.rows().equals(once.rows())
    assert (whole.texts, whole.empty) == (once.texts, once.empty) == (18, 3)
    assert whole.mean_length["resid_post.1"] == pytest.approx(once.mean_length["resid_post.1"], rel=1e-5)
    again = cutaway.activations(tales, TEXTS, at="resid_post.1", folder=tmp_path / "once")
    assert again.shards == once.shards


def test_a_folder_that_holds_something_else_stays_as_it_is(tales: Network, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.mkdir()
    (held / "notes.txt").write_text("mine")
    with pytest.raises(SaveFailed, match="something else"):
        cutaway.activations(tales, TEXTS, at="embed", folder=held)
    assert [f.name for f in held.iterdir()] == ["notes.txt"]
    with pytest.raises(SaveFailed, match="file"):
        cutaway.activations(tales, TEXTS, at="embed", folder=held / "notes.txt")
    other = cutaway.top_examples(tales, TEXTS, of="n2.7").save(tmp_path / "other")
    with pytest.raises(SaveFailed, match="something else"):
        cutaway.activations(tales, TEXTS, at="embed", folder=other)
    mine = tmp_path / "mine"
    made = cutaway.activations(tales, TEXTS, at="embed", folder=mine)
    for options, said in (
        ({"at": "resid_post.1"}, "shapes"),
        ({"at": "embed", "dtype": "float16"}, "dtype"),
        ({"at": "embed", "special": True}, "special"),
    ):
        with pytest.raises(SaveFailed, match=said):
            cutaway.activations(tales, TEXTS, folder=mine, **options)
    with pytest.raises(BadInput, match="other texts"):
        cutaway.activations(tales, ["John was here", *TEXTS], at="embed", folder=mine)
    with pytest.raises(SaveFailed, match="exists"):
        made.save(held)
    assert cutaway.load(mine).rows().equals(made.rows())


def test_changed_files_are_found_when_they_are_read(tales: Network, tmp_path: Path) -> None:
    made = cutaway.activations(tales, TEXTS, at="embed", folder=tmp_path / "acts", dtype="float16")
    assert made.array("embed")[0].dtype == torch.float16
    file = tmp_path / "acts" / made.shards[0].file
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptFile, match="not as it was saved"):
        cutaway.load(tmp_path / "acts").array("embed")[0]
    file.unlink()
    with pytest.raises(CorruptFile, match="missing"):
        cutaway.load(tmp_path / "acts").verify()
    manifest = tmp_path / "acts" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"texts": 18', '"texts": 19'))
    with pytest.raises(CorruptFile, match="not as it was saved"):
        cutaway.load(tmp_path / "acts")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"at": []}, BadInput, "No site"),
        ({"at": "pattern.0"}, BadInput, "each token"),
        ({"at": "resid_pots"}, NotFound, "resid_post"),
        ({"at": "pos_embed"}, SiteUnavailable, "refused"),
        ({"dtype": "flaot16"}, BadInput, "float16"),
        ({"length": 10**6}, BadInput, "length"),
    ],
)
def test_what_cannot_be_written(
    tales: Network, tmp_path: Path, options: Any, error: type[CutawayError], said: str
) -> None:
    with pytest.raises(error, match=said):
        cutaway.activations(tales, TEXTS, folder=tmp_path / "new", **{"at": "embed", **options})
    assert not (tmp_path / "new").exists()


def test_what_is_not_there(tales: Network, tmp_path: Path) -> None:
    made = cutaway.activations(tales, "Mary was sad", at="embed", folder=tmp_path / "one")
    with pytest.raises(BadAddress, match="embed"):
        made.array("embd")
    with pytest.raises(BadAddress, match="row 99"):
        made.array("embed")[99]
    with pytest.raises(BadInput, match="size"):
        list(made.array("embed").batches(0))


def test_a_network_without_logits_is_read_as_well() -> None:
    torch.manual_seed(0)
    small = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=50
    )
    net = cutaway.open(BertModel(small).eval())
    found = cutaway.top_examples(net, [[5, 6, 7], [8, 9]], of="n1.3", k=2, one_per_text=False)[0]
    act = net.run([[5, 6, 7]], keep="mlp_act.1")["mlp_act.1"][0, :, 3]
    other = net.run([[8, 9]], keep="mlp_act.1")["mlp_act.1"][0, :, 3]
    wanted = sorted([*act.tolist(), *other.tolist()], reverse=True)[:2]
    assert [e.activation for e in found.top] == pytest.approx(wanted, abs=1e-5)
