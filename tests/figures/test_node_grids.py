"""Small maps of many networks: one for each, with its known nodes ringed."""

import numpy as np
import pytest

from cutaway.figures import Panel, node_grids


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_network_has_its_map(count: int) -> None:
    rng = np.random.default_rng(count)
    panels = [
        Panel(f"n{i}", rng.random((1 + i % 3, 5)), rng.random((1 + i % 3, 5)) < 0.3) for i in range(count)
    ]
    figure = node_grids(panels, columns=3)
    maps = [t for t in figure.data if t.type == "heatmap"]
    assert [a.text for a in figure.layout.annotations] == [p.title for p in panels]
    for drawn, panel in zip(maps, panels, strict=True):
        assert np.allclose(np.array(drawn.z, dtype=float), panel.scores)
        assert drawn.x[-1] == "MLP"
        assert drawn.text[0][0] == "head 0.0"
        assert drawn.text[-1][-1] == f"MLP {len(panel.scores) - 1}"
    rings = [t for t in figure.data if t.type == "scatter"]
    assert [len(t.x) for t in rings[::2]] == [int(p.known.sum()) for p in panels]


def test_no_network_is_an_empty_figure() -> None:
    assert len(node_grids([]).data) == 0
