"""A figure that can be drawn twice: by Plotly to be touched, and still, for a page, a notebook, a paper."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

if TYPE_CHECKING:
    import pandas as pd

#: Larger still pictures are shown in a notebook as PNG: many marks make SVG heavy.
_LARGEST_SVG = 300_000


class Picture(go.Figure):
    """A Plotly figure, with all that Plotly offers, that also draws itself still: `save`, `svg`, and in a notebook."""

    @classmethod
    def of(cls, figure: go.Figure) -> Picture:
        """The same figure, in place, as one that can be drawn still."""
        if not isinstance(figure, Picture):
            figure.__class__ = cls
        assert isinstance(figure, Picture)
        return figure

    def __repr__(self) -> str:
        kinds = ", ".join(dict.fromkeys(str(trace.type) for trace in self.data))
        return f"Picture({kinds}; .save('picture.svg') writes it, .show() opens it, a notebook draws it)"

    def save(
        self,
        path: str | os.PathLike[str],
        style: str = "paper",
        width: str | float = "column",
        dpi: int = 300,
    ) -> Path:
        """Write it as SVG, PDF or PNG, by the ending of the path, whole or not at all.

        Args:
            path: where to; its folder is made.
            style: "paper" is set in 7 to 8 points without a title, as a paper has a caption for it; "screen" is what a page
                shows.
            width: "column" (3.3 inches), "page" (6.9 inches), or inches; of style "paper" only.
            dpi: dots to the inch, of PNG only.

        Returns:
            The path.

        Raises:
            BadInput: for another ending, style or width, and for marks that have no still drawing.
            SaveFailed: where the disk refuses.
        """
        from cutaway.figures.still import save

        return save(self, path, style, width, dpi)

    def svg(self, width: int = 720, title: bool = True) -> str:
        """The still drawing as SVG: text stays text, nothing is fetched, the same figure gives the same bytes.

        Args:
            width: in pixels.
            title: draw the figure's title?
        """
        from cutaway.figures.still import svg

        return svg(self, width, title)

    def table(self) -> pd.DataFrame:
        """What is plotted, one row for each mark, with intervals where there are any: read off the figure itself."""
        from cutaway.figures.behind import rows_of

        return rows_of(self)

    def _repr_html_(self) -> str:
        """The still drawing for a notebook; it needs no script and no network."""
        from cutaway.figures.still import inlined, png_uri

        drawn = inlined(self.svg())
        if len(drawn) > _LARGEST_SVG:
            said = html.escape(self.layout.title.text or "figure")  # pyright: ignore[reportAttributeAccessIssue]
            drawn = f"<img src='{png_uri(self)}' alt='{said}' style='max-width:100%'>"
        return f"<div style='background:#fff;max-width:720px;overflow-x:auto'>{drawn}</div>"

    def _repr_mimebundle_(self, *_: Any, **__: Any) -> dict[str, str]:
        """The still drawing in place of Plotly's own bundle, which needs its script."""
        return {"text/html": self._repr_html_()}

    #: Plotly's own way to a notebook is left aside: IPython then asks for the bundle above.
    _ipython_display_ = None  # pyright: ignore[reportAssignmentType]
