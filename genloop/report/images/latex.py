"""Tables as LaTeX, for papers."""

from collections.abc import Sequence

_ESCAPED = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"},
}


def latex_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, num_texts: int) -> str:
    """A `tabular` with the lines of booktabs; the first `num_texts` columns are left-aligned."""
    columns = "l" * num_texts + "r" * (len(header) - num_texts)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _line(header), r"\midrule"]
    lines += [*map(_line, rows), r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join("".join(_ESCAPED.get(sign, sign) for sign in cell) for cell in cells) + r" \\"
