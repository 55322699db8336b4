"""The README's picture: the demo's front as measured on fresh questions.

mergefront validate examples/demo.yaml --split test --format json > benchmarks/demo/validation.json
python benchmarks/demo/picture.py
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Model = Mapping[str, Any]
# Colours that stay apart for colour-blind readers (Okabe and Ito).
FRONT, UNIFORM, PARENT = "#0072B2", "#E69F00", "#D55E00"


def draw(validation: Mapping[str, Any]) -> Figure:
    """Draw what `mergefront validate --format json` printed for accuracy and tokens."""
    figure = Figure(figsize=(8.0, 4.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    models: Sequence[Model] = validation["models"]
    parents = [m for m in models if m["label"] in ("base", "expert")]
    uniform = [m for m in models if m["label"].startswith("uniform")]
    front = [m for m in models if m["label"].startswith("trial")]
    _points(axes, uniform + parents, {"color": UNIFORM, "fmt": "s--"}, "one weight for all layers")
    _points(axes, front, {"color": FRONT, "fmt": "o"}, "one weight per layer (the front)")
    for parent in parents:
        point = (parent["values"]["tokens"], parent["values"]["accuracy"])
        axes.plot(*point, "*", color=PARENT, markersize=15, markeredgecolor="white", zorder=5)
        axes.annotate(
            parent["label"],
            point,
            weight="bold",
            textcoords="offset points",
            xytext=(9, 7) if parent["label"] == "base" else (9, -13),
            color=PARENT,
        )
    axes.set_xlabel("tokens per answer (mean), lower is better")
    axes.set_ylabel("accuracy (share of questions), higher is better")
    axes.set_title(
        f"Demo: {validation['n_questions']} questions that the search never saw; "
        "bars are ± one standard error",
        fontsize=10,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e8ebee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="lower right")
    return figure


def _points(axes: Axes, models: Sequence[Model], style: Mapping[str, Any], label: str) -> None:
    """Draw models in the order of their tokens, with standard errors."""
    ordered = sorted(models, key=lambda model: float(model["values"]["tokens"]))
    axes.errorbar(
        [model["values"]["tokens"] for model in ordered],
        [model["values"]["accuracy"] for model in ordered],
        xerr=[model["standard_errors"]["tokens"] for model in ordered],
        yerr=[model["standard_errors"]["accuracy"] for model in ordered],
        markersize=5,
        elinewidth=1,
        label=label,
        **style,
    )


def main() -> None:
    """Read the committed validation and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).parent
    parser.add_argument("--validation", type=Path, default=here / "validation.json")
    parser.add_argument("--out", type=Path, default=here.parents[1] / "docs/images/front.png")
    arguments = parser.parse_args()
    draw(json.loads(arguments.validation.read_text())).savefig(arguments.out)


if __name__ == "__main__":
    main()
