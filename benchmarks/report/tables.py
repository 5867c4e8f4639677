"""Writes tables in Markdown, for terminal and pages. Every number comes from a results file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..goals import judge
from ..registry import OURS


def duration(ms: float) -> str:
    return f"{ms * 1e3:.1f} µs" if ms < 0.1 else f"{ms:.2f} ms"


def machine_line(report: dict) -> str:
    where, how, versions = report["machine"], report["settings"], report["versions"]
    copy = report["copy_gb_per_s"]
    parts = [
        where["device"],
        f"{how['threads']} threads ({how['pinned']})" if how["device"] == "cpu" else "",
        (how.get("isa") or where["capability"]).upper() if how["device"] == "cpu" else "",
        f"torch {versions['torch']}",
        f"fused_mixup {versions['fused_mixup']} ({how['backend']})",
        report["date"],
        f"copy {copy} GB/s, reads and writes" if copy else "",
        "" if report["finished"] else "**a run that was interrupted**",
    ]
    return ", ".join(part for part in parts if part)


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def peers(row: dict) -> dict[str, dict]:
    return {name: p for name, p in row["providers"].items() if name != OURS}


def ratio(row: dict, peer: str) -> float:
    """How many times faster ours is."""
    return row["providers"][peer]["median_ms"] / row["providers"][OURS]["median_ms"]


def share(figures: dict) -> str:
    return f"{figures['share_of_floor']:.0%}" if "share_of_floor" in figures else ""


def extra(figures: dict) -> str:
    """Extra memory; empty where the run ended before the counts."""
    return f"{figures['extra_mib']:.1f} MiB" if "extra_mib" in figures else ""


def host(figures: dict) -> str:
    return f"{figures['host_us']:.0f} µs" if "host_us" in figures else ""


def calls(figures: dict) -> str:
    """Operators of one call; on a GPU its launches and synchronisations."""
    if "launches" in figures:
        return f"{figures['launches']} / {figures['synchronisations']}"
    return str(figures.get("operators", ""))


def cases(report: dict) -> str:
    """One line for each case and peer."""
    on_gpu = report["settings"]["device"] == "cuda"
    head = ["case", "ours", "baseline", "times faster", "GB/s", "share of copy"]
    head += ["extra memory", "launches / syncs" if on_gpu else "operators"]
    head += ["host time"] if on_gpu else []
    body = []
    for row in report["results"]:
        if row["sweep"] or "parts_ms" in row["providers"][OURS]:  # shown elsewhere
            continue
        mine = row["providers"][OURS]
        for i, (name, other) in enumerate(peers(row).items() or [("", {})]):
            first = i == 0
            cells = [row["case"] if first else "", duration(mine["median_ms"]) if first else ""]
            if other:
                cells += [f"{name}: {duration(other['median_ms'])}", f"{ratio(row, name):.1f}×"]
            else:
                cells += ["", ""]
            speed = f"{mine['gb_per_s']:.1f}" if "gb_per_s" in mine else ""
            cells += [speed, share(mine)] if first else ["", ""]
            cells.append(f"{extra(mine)} / {extra(other)}")
            cells.append(f"{calls(mine)} · {calls(other)}")
            if on_gpu:
                cells.append(f"{host(mine)} · {host(other)}")
            body.append(cells)
    return markdown(head, body)


def steps(report: dict) -> str:
    """Time of training steps, augmentation and loss; empty where none was measured."""
    body = []
    for row in report["results"]:
        for name, figures in row["providers"].items():
            parts = figures.get("parts_ms", {})
            if "network" in parts:
                total = sum(parts.values())
                spent = parts["augmentation"] + parts["loss"]
                cells = [duration(ms) for ms in (total, parts["augmentation"], parts["loss"])]
                body.append([row["case"], name, *cells, f"{spent / total:.2%}"])
    head = ["step", "", "total", "augmentation", "loss", "share of both"]
    return markdown(head, body) if body else ""


def loaders(report: dict) -> str:
    """Time of an epoch, and CPU time of a batch in parts; empty where none was measured."""
    body = []
    names: list[str] = []
    for row in report["results"]:
        for name, figures in row["providers"].items():
            parts = figures.get("parts_ms", {})
            if "decode" in parts:
                names = [*parts]
                faster = "" if name == OURS else f"{ratio(row, name):.2f}×"
                cells = [duration(ms) for ms in (figures["median_ms"], *parts.values())]
                body.append([row["case"], name, cells[0], faster, *cells[1:]])
    head = ["loader", "", "epoch", "ours is faster", *(f"{name}, CPU" for name in names)]
    return markdown(head, body) if body else ""


def figure_text(part: dict) -> str:
    value = part["got"]
    if value is None:
        return "not measured"
    if part["against"] == "floor":
        return f"{value:.0%}"
    if part["against"] in ("us", "above us"):
        return f"{value:.1f} µs"
    return f"{value:.1f} MiB" if part["against"] == "MiB" else f"{value:.1f}×"


def goals(report: dict) -> str:
    body = []
    for goal in judge(report):
        wanted = "<br>".join(part["want"] for part in goal["parts"])
        found = "<br>".join(figure_text(part) for part in goal["parts"])
        body.append([goal["text"], goal["case"] or "no case", wanted, found, goal["verdict"]])
    return markdown(["goal", "case", "wanted", "measured", ""], body)


def explanations(report: dict) -> str:
    """For each missed goal, the profile of both sides."""
    by_name = {row["case"]: row for row in report["results"]}
    lines = []
    for goal in judge(report):
        if goal["verdict"] != "missed":
            continue
        row = by_name[goal["case"]]
        parts = (f"{part['want']}: {figure_text(part)}" for part in goal["parts"])
        lines.append(f"- **{goal['text']}** ({goal['case']}): {', '.join(parts)}.")
        wanted = {part["against"] for part in goal["parts"]} | {OURS}
        for name, figures in row["providers"].items():
            if name in wanted:
                lines.append(f"  - {name}: {profile(figures)}")
        lines += [f"  - {text}" for text in explain_by_floor(row, goal)]
    return "\n".join(lines) or "All goals that were measured are reached."


def profile(figures: dict) -> str:
    text = duration(figures["median_ms"])
    if "gb_per_s" in figures:
        text += f", {figures['gb_per_s']:.1f} GB/s on the counted bytes"
        text += f" ({share(figures)} of the copy floor)" if share(figures) else ""
    most = figures.get("profile", [])
    if most:
        times = (
            f"{name} {part:.0%}" + (f" ({n} calls)" if n > 1 else "") for name, part, n in most
        )
        text += "; profile: " + ", ".join(times)
    return text


def explain_by_floor(row: dict, goal: dict) -> list[str]:
    """The memory speed that a missed ratio needs: above 100 % no streaming code reaches it."""
    mine = row["providers"][OURS]
    if "share_of_floor" not in mine:
        return []
    found = []
    for part in goal["parts"]:
        peer = row["providers"].get(part["against"])
        if peer is None or part["got"] is None:
            continue
        if part["got"] < part["number"]:
            needed = mine["share_of_floor"] * part["number"] / part["got"]
            found.append(
                f"to reach {part['want']} ours would have to move its bytes at {needed:.0%} of "
                "the copy's speed"
            )
    return found


def skipped(report: dict) -> str:
    """Each skipped provider, with the reason and the number of cases."""
    reasons: dict[tuple[str, str], int] = {}
    for row in report["results"]:
        for name, why in row["skipped"].items():
            reasons[name, why] = reasons.get((name, why), 0) + 1
    return "\n".join(f"- {name}, {n} cases: {why}" for (name, why), n in reasons.items())


def sections(report: dict) -> dict[str, str]:
    """Titles and texts of a run's sections, in order; none is empty."""
    found = {
        "Goals": goals(report),
        "Goals not reached, with their profiles": explanations(report),
        "Cases": cases(report),
        "Training steps": steps(report),
        "Loaders, from files to the model's input": loaders(report),
        "Skipped": skipped(report),
        "Not measured": "\n".join(f"- {case}" for case in report["not_measured"]),
        "Failed": "\n".join(f"- {case}: {why}" for case, why in report["failed"].items()),
    }
    return {title: text for title, text in found.items() if text}


def summary(report: dict) -> str:
    """The text that a run prints at its end."""
    texts = [machine_line(report), cases(report)]
    texts += [text for text in (steps(report), loaders(report)) if text]
    texts += [goals(report)]
    texts += [f"skipped:\n{skipped(report)}"] if skipped(report) else []
    texts += [f"FAILED {case}: {why}" for case, why in report["failed"].items()]
    return "\n\n".join(texts)
