"""What `edgelip blame` found, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LAYER_COLUMNS = (
    "layer back in float", "alone dB", "inside dB", "logits dB", "regained dB", "top-1 %", "clips", "p", "latency to B"
)  # fmt: skip
WORD_COLUMNS = ("word", "clips", "A right", "B right", "lost", "gained", "p", "p (Holm)")
VISEME_COLUMNS = ("words with", *WORD_COLUMNS[1:], "those that lose most")
PAIR_COLUMNS = ("word", "taken for", "by A", "by B", "p", "p (Holm)")
FLIP_COLUMNS = ("clip", "word", "A says", "B says", "")
SHORT = 8  # rows a table on a terminal
LAYER_NOTE = (
    "alone: signal to noise of the layer's output when it gets A's inputs; inside: as it runs in B, with the noise of "
    "the layers before it. logits: of the answers on a few clips with the layer back, and what that is more than "
    "without. clips: net clips regained, with exact McNemar; latency in turn with B in one process, 95 % interval. "
    "Layers chosen on these clips look better on them than they are: choose on validation clips, confirm on test clips."
)
WORD_NOTE = (
    "lost: clips that only A has right; gained: only B. p: exact McNemar; Holm: corrected for all rows with at least 6 "
    "changed clips, fewer cannot reach 0.05."
)


def blame_text(result: Mapping[str, Any]) -> str:
    """The heads of all tables."""
    lines = [_heading(result), ""]
    for title, columns, rows, left in _tables(result):
        if rows:
            lines += [title, *_aligned([columns, *rows[:SHORT]])]
            lines += [f"(and {len(rows) - SHORT:,} more in blame.md)"] if len(rows) > SHORT else []
            lines += [*left, ""]
        elif left:
            lines += [title, *left, ""]
    return "\n".join([*lines, *_advice(result)])


def blame_markdown(result: Mapping[str, Any]) -> str:
    """Everything that was found."""
    lines = ["# Blame", "", _heading(result), ""]
    for title, columns, rows, left in _tables(result):
        lines += [f"## {title}", ""]
        if rows:
            lines += [_line(columns), _line(["---"] * len(columns)), *map(_line, rows), ""]
        elif not left:
            lines += ["None.", ""]
        lines += [line for each in left for line in (each, "")]
    lines += ["## What to do", "", *_advice(result), "", LAYER_NOTE, "", WORD_NOTE]
    return "\n".join(lines) + "\n"


def _heading(result: Mapping[str, Any]) -> str:
    total, clips = result["words"]["total"], result["clips"]["num_clips"]
    value, low, high = total["change_points"]
    return (
        f"A {result['reference']['name']} ({result['reference']['file']}) {total['reference_top1_pct']:.2f} %, "
        f"B {result['suspect']['name']} ({result['suspect']['file']}) {total['suspect_top1_pct']:.2f} % top-1 of "
        f"{clips:,} clips: {value:+.2f} points [{low:+.2f}, {high:+.2f}], {total['lost']} clips lost, "
        f"{total['gained']} gained, p {_p(total['p'])}"
    )


def _tables(result: Mapping[str, Any]) -> list[tuple[str, Sequence[str], list[list[str]], list[str]]]:
    words = result["words"]
    unknown = words["without_pronunciation"]
    note = [f"No pronunciation is known of {len(unknown)} words: {', '.join(unknown[:10])}."] if unknown else []
    changed, visemes = ([each for each in words[key] if each["lost"] or each["gained"]] for key in ("words", "visemes"))
    return [
        ("Layers", LAYER_COLUMNS, _layer_rows(result["layers"]), _layer_lines(result["layers"])),
        ("Words", WORD_COLUMNS, [_change(each) for each in changed], []),
        ("Confusions that grew", PAIR_COLUMNS, [_pair(each) for each in words["confusions"]], []),
        ("Visemes", VISEME_COLUMNS, [[*_change(each), _few(each["words"])] for each in visemes], note),
        ("Clips that flipped", FLIP_COLUMNS, [_flip(each) for each in words["flips"]], []),
    ]


def _layer_rows(layers: Mapping[str, Any]) -> list[list[str]]:
    if layers["reason"] is not None:
        return []
    rows = [_layer(row, row["layers"][0]) for row in layers["rows"]]
    joint = [_layer(row, f"the first {len(row['layers'])}") for row in layers["together"]]
    every = [] if layers["everything"] is None else [_layer(layers["everything"], "all of them")]
    return [*joint, *every, *rows]


def _layer(row: Mapping[str, Any], name: str) -> list[str]:
    own = " (own weights)" if row["weights"][:1] == ["own"] and len(row["layers"]) == 1 else ""
    measured = row["regained_clips"] is not None
    ratio = row["latency_ratio"]
    return [
        f"{name}{own}",
        "-" if row.get("chain") else _db(row["alone_db"]) if "alone_db" in row else "",
        _db(row.get("inside_db")) if "inside_db" in row else "",
        _db(row["logits_db"]),
        _db(row["regained_db"], "+.1f"),
        f"{row['top1_pct']:.2f}" if measured else "-",
        f"{row['regained_clips']:+d}" if measured else "-",
        _p(row["p"]) if measured else "-",
        "-" if ratio is None else f"{ratio[0]:.3f} [{ratio[1]:.3f}, {ratio[2]:.3f}]",
    ]


def _layer_lines(layers: Mapping[str, Any]) -> list[str]:
    lines = [] if layers["reason"] is None else [f"Layers were not looked at: {layers['reason']}"]
    if layers.get("trained_on"):
        lines.append(
            "B was trained on after A: a layer was put back with A's weights and with its own, and the better one kept."
        )
    if layers.get("undone"):
        names = [each["layer"] for each in layers["undone"]]
        lines.append(
            f"Time was up before {len(names)} layers; those that come next: {_few(names, 5)}. The same command goes on "
            "there."
        )
    apart = layers.get("apart", {})
    for reason in dict.fromkeys(apart.values()):
        lines.append(f"Not comparable ({reason}): {_few([name for name, why in apart.items() if why == reason], 5)}.")
    return lines


def _advice(result: Mapping[str, Any]) -> list[str]:
    advice, total = result["layers"].get("advice"), result["words"]["total"]
    if advice is None:
        if result["layers"]["reason"] is not None:
            return ["No layer can be excluded on this evidence."]
        if total["lost"] <= total["gained"] or total["p"] >= 0.05:
            return [f"B's loss is within chance (p {_p(total['p'])}): no layer needs to be excluded."]
        if all(row["regained_clips"] is None for row in result["layers"]["rows"]):
            return ["No layer has been put back on all clips yet: the same command goes on."]
        return ["No layer or set of layers that was put back on all clips regains accuracy beyond chance."]
    ratio = advice["latency_ratio"]
    clock = (
        "latency not measured" if ratio is None else f"latency {ratio[0]:.3f} [{ratio[1]:.3f}, {ratio[2]:.3f}] of B's"
    )
    names = ", ".join(advice["layers"])
    cost = f"{advice['top1_pct']:.2f} % top-1 ({advice['regained_clips']:+d} clips, p {_p(advice['p'])}), {clock}"
    lines = [f"Leave alone {names}. Expected: {cost}."]
    for each in advice["exclusions"]:
        if each["toml"] is None:
            lines.append(f"Stage {each['stage']!r} of B takes no list of single layers to leave alone as it is set.")
        else:
            lines += [f"Paste into stage {each['stage']!r}:", f"    {each['toml']}"]
    if len(advice["exclusions"]) > 1:
        lines.append("The figures hold for all these stages together; to blame one, take the bundle before it as A.")
    return lines


def _change(each: Mapping[str, Any]) -> list[str]:
    counts = [each[key] for key in ("num_clips", "right_before", "right_after", "lost", "gained")]
    return [each["name"], *map(str, counts), _p(each["p"]), "-" if each["p_holm"] is None else _p(each["p_holm"])]


def _pair(each: Mapping[str, Any]) -> list[str]:
    cells = [each["word"], each["said"], str(each["before"]), str(each["after"]), _p(each["p"])]
    return [*cells, "-" if each["p_holm"] is None else _p(each["p_holm"])]


def _flip(each: Mapping[str, Any]) -> list[str]:
    return [str(each["clip"]), each["word"], each["before"], each["after"], each["kind"]]


def _few(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def _db(value: float | None, form: str = ".1f") -> str:
    return "same" if value is None else format(value, form)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for first, *rest in rows:
        cells = [text.rjust(width) for text, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines
