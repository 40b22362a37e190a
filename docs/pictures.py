"""Makes the pictures of docs/daily.md from its own code: python docs/pictures.py"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
#: What of the page is drawn, by the name of the picture: an expression in the page's own names.
DRAWN = {
    "two-prompts": "found.plot()",
    "attribution": "first.plot()",
    "side-by-side": "cutaway.side_by_side(net, text, other).plot()",
    "patterns": "cutaway.patterns(net, text).plot()",
    "loss": "net.loss(texts[0]).plot()",
    "steering": "steered.plot()",
    "top-examples": "top.plot()",
    "gradients": "gradients.plot()",
    "induction-heads": "heads.plot()",
}


def main() -> None:
    """The command."""
    names: dict[str, Any] = {}
    page = (HERE / "daily.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        began = os.getcwd()
        os.chdir(folder)
        try:
            for code in FENCE.findall(page):
                exec(code, names)
        finally:
            os.chdir(began)
    for name, code in DRAWN.items():
        path = HERE / "images" / f"{name}.png"
        eval(code, names).save(path, width="column" if name == "loss" else "page")
        print(path)


if __name__ == "__main__":
    main()
