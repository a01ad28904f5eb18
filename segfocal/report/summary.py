"""The answer at the top of the page, as text."""

from __future__ import annotations

from segfocal.report.evaluated import Evaluated

UNKNOWN = "–"


def tail(item: Evaluated) -> str:
    """What the names of the figures of the whole end in: the mean over the classes, or the only class."""
    return "_macro" if item.task.num_classes > 1 else f"/{item.task.class_names[0]}"


def number(value: float | None) -> str:
    """Three decimals."""
    return UNKNOWN if value is None else f"{value:.3f}"


def percent(share: float | None) -> str:
    """Two digits, however small."""
    if share is None:
        return UNKNOWN
    return f"{share:.1%}" if share >= 0.1 else f"{100 * share:.2g}%"


def interval(item: Evaluated, name: str) -> str:
    """From and to; empty where none was computed."""
    ends = item.intervals.get(name)
    return f"{ends[0]:.3f}–{ends[1]:.3f}" if ends else ""


def rule(item: Evaluated) -> str:
    """What everybody decides by."""
    return "highest score" if item.task.name == "multiclass" else "0.5"


def fitted(item: Evaluated) -> str:
    """What the checkpoint decides by, where that is something else."""
    return "fitted offsets" if item.task.name == "multiclass" else "fitted thresholds" if item.task.num_classes > 1 else "fitted threshold"


def by_fitted(evaluated: list[Evaluated]) -> str:
    """To be said of figures that are by what each checkpoint has fitted; empty where none has fitted anything."""
    plain = [item.decision.plain for item in evaluated]
    return "" if all(plain) else f", by the {fitted(evaluated[0])}{' where there are any' if any(plain) else ''}"


def tiles(item: Evaluated) -> list[dict[str, str]]:
    """How good, where it fails, at what threshold, how sure."""
    return [_good(item), _fails(item), _decides(item), _sure(item)]


def _good(item: Evaluated) -> dict[str, str]:
    figures, end = item.figures, tail(item)
    rest = [f"Dice {number(figures.get('dice' + end))}", f"AP {number(figures.get('ap' + end))}"]
    if figures.get("accuracy") is not None:
        rest.append(f"{percent(figures['accuracy'])} of the decisions right")
    many = item.task.num_classes > 1
    return {
        "question": "How good?",
        "value": number(figures.get("iou" + end)),
        "unit": "mean IoU" if many else "IoU",
        "interval": interval(item, "iou" + end),
        "note": ", ".join(rest),
    }


def _fails(item: Evaluated) -> dict[str, str]:
    figures, names = item.figures, item.task.class_names
    known = {name: value for name in names if (value := figures.get(f"iou/{name}")) is not None}
    worst = min(known, key=lambda name: known[name], default=None)
    if worst is None:
        return {"question": "Where does it fail?", "value": UNKNOWN, "unit": "no class is there or predicted", "interval": "", "note": ""}
    recall, precision = figures.get(f"recall/{worst}"), figures.get(f"precision/{worst}")
    errors = []
    if recall is not None:
        errors.append(f"misses {percent(1 - recall)} of its pixels")
    if precision is not None:
        errors.append(f"{percent(1 - precision)} of what it marks is wrong")
    if len(names) == 1:
        return {
            "question": "Where does it fail?",
            "value": UNKNOWN if recall is None else percent(1 - recall),
            "unit": f"of {worst} missed",
            "interval": "",
            "note": f"{UNKNOWN if precision is None else percent(1 - precision)} of what it marks is wrong; "
            f"{percent(figures.get(f'pixel_share/{worst}'))} of the pixels are {worst}",
        }
    rarest = min(known, key=lambda name: figures.get(f"pixel_share/{name}") or 0.0)
    share = percent(figures.get(f"pixel_share/{rarest}"))
    also = f"also the rarest, {share} of the pixels" if rarest == worst else f"the rarest, {rarest} with {share}, has {known[rarest]:.3f}"
    return {
        "question": "Where does it fail?",
        "value": number(known[worst]),
        "unit": f"IoU of {worst}",
        "interval": interval(item, f"iou/{worst}"),
        "note": "; ".join([also, *errors]),
    }


def _decides(item: Evaluated) -> dict[str, str]:
    figures, end, decision, names = item.figures, tail(item), item.decision, item.task.class_names
    before, after = figures.get("iou" + end), figures.get(f"tuned/iou{end}")
    tile = {"question": "At what threshold?", "interval": ""}
    if decision.plain:
        best = figures.get(f"best_threshold/{names[0]}"), figures.get(f"best_iou{end}")
        note = "nothing was fitted on validation" + ("" if best[1] is None else f"; the best on these pixels would reach {best[1]:.3f}")
        return {
            **tile,
            "value": rule(item),
            "unit": "the plain rule" if item.task.name == "multiclass" else "for every class",
            "note": note,
        }
    gains = {name: (figures.get(f"tuned/iou/{name}") or 0.0) - (figures.get(f"iou/{name}") or 0.0) for name in names}
    most = max(gains, key=lambda name: gains[name])
    if len(names) == 1:
        return {
            **tile,
            "value": f"{decision.thresholds[0]:.3g}",
            "unit": "in place of 0.5",
            "note": f"fitted on validation; IoU {number(before)} → {number(after)} here",
        }
    return {
        **tile,
        "value": number(after),
        "unit": f"mean IoU with {fitted(item)}",
        "interval": interval(item, f"tuned/iou{end}"),
        "note": f"fitted on validation; {number(before)} by the plain rule, {most} {gains[most]:+.3f}",
    }


def _sure(item: Evaluated) -> dict[str, str]:
    value, end = item.figures.get("ece" + tail(item)), tail(item)
    notes = ["the mean gap between a probability and how often it is right", f"Brier score {number(item.figures.get('brier' + end))}"]
    if item.decision.temperature:
        notes.append(f"{percent(item.figures.get('tuned/ece' + end))} with the fitted temperature")
    return {"question": "How sure?", "value": percent(value), "unit": "calibration error", "interval": "", "note": "; ".join(notes)}
