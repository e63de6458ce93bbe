"""Results as text."""

from typing import Any

from fss.report.protocol import protocol_name


def console_table(result: dict[str, Any]) -> str:
    """The scores of one test, class by class, with what makes them comparable."""
    scores, protocol = result["scores"], result["protocol"]
    width = max(12, *(len(name) for name in scores["per_class"]))
    rule = "-" * (width + 24)
    interval = "" if scores["interval"] is None else f" +- {scores['interval']:.2f}"
    trained, steps = result["shots"]["train"], result["checkpoint"].get("steps")
    external = "external" in result["checkpoint"]
    without = "converted weights" if "converted" in result["checkpoint"] else "weights as they are"
    lines = [
        f"{protocol['data']} fold {protocol['fold']}, {result['head']['type']}, "
        f"tested with {protocol['shots']} shot(s), "
        + (f"trained with {trained}" if trained else "trained elsewhere" if external else "nothing to train"),
        rule,
        *(f"{name:<{width}}  {iou:6.2f}" for name, iou in scores["per_class"].items()),
        *(f"{name:<{width}}     never seen" for name in scores["unseen_classes"]),
        rule,
        f"{'mIoU':<{width}}  {scores['miou']:6.2f}{interval}   "
        f"(95%, {protocol['runs']} runs x {protocol['episodes']} episodes)",
        f"{'FB-IoU':<{width}}  {scores['fb_iou']:6.2f}",
        ("external model" if external else without if steps is None else f"checkpoint of step {steps}")
        + f", labels at {protocol['label_size']}, plan {protocol['plan_sha256'][:12]}"
        + ("" if external else f", {result['precision']}"),
    ]
    lines.append(f"protocol: {protocol_name(protocol)}")
    if told := result.get("supports"):
        lines.append(
            f"support masks: made from {told['kind']} by {told['method']}, {told['masks']} of them, mean IoU "
            f"with the true ones {told['miou_with_truth'] or 0:.2f}"
        )
    lines += [
        f"{count} episodes: {note.replace('_', ' ')}" for note, count in scores["notes"].items() if count
    ]
    if protocol["published_list"] is False:
        lines.append("note: the list of test images is not the published one")
    return "\n".join(lines)


def one_line(result: dict[str, Any]) -> str:
    """A second test beside one with a table: which checkpoint, and its scores."""
    scores, told = result["scores"], result["checkpoint"]
    interval = "" if scores["interval"] is None else f" +- {scores['interval']:.2f}"
    chosen = result["protocol"]["selection"].partition(" ")[0]
    return (
        f"{chosen} checkpoint, of step {told.get('steps')}: mIoU {scores['miou']:.2f}{interval}, "
        f"FB-IoU {scores['fb_iou']:.2f}"
    )
