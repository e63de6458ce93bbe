"""The scores of one test as text for the console."""

from typing import Any

from fss.report.protocol import protocol_name
from fss.writing import plain_line


def console_table(result: dict[str, Any]) -> str:
    """The scores of one test, class by class, with the protocol that makes them comparable."""
    scores, protocol = result["scores"], result["protocol"]
    lines = [
        _title(result),
        _scores(scores, protocol),
        _origin(result),
        f"protocol: {protocol_name(protocol)}",
    ]
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
    checkpoint = result["checkpoint"]
    if checkpoint.get("stage") == "few-shot" and checkpoint.get("steps") == 0:
        lines.append(
            "note: no step of training did better in validation than the head before it, which is what was "
            "tested here; train longer (train.seconds, train.epochs)"
        )
    return "\n".join(lines)


def _title(result: dict[str, Any]) -> str:
    protocol, trained = result["protocol"], result["shots"]["train"]
    untrained = "trained elsewhere" if "external" in result["checkpoint"] else "nothing to train"
    return (
        f"{protocol['data']} fold {protocol['fold']}, {result['head']['type']}, tested with "
        f"{protocol['shots']} shot(s), " + (f"trained with {trained}" if trained else untrained)
    )


def _scores(scores: dict[str, Any], protocol: dict[str, Any]) -> str:
    from tabulate import SEPARATING_LINE, tabulate

    interval = "" if scores["interval"] is None else f"+- {scores['interval']:.2f} "
    runs = f"{protocol['runs']} run{'s' * (protocol['runs'] > 1)} x {protocol['episodes']} episodes"
    about = f"{interval}(95%, {runs})" if interval else f"({runs})"
    lines: list[Any] = [[plain_line(name), f"{iou:.2f}", ""] for name, iou in scores["per_class"].items()]
    lines += [[plain_line(name), "-", "never seen"] for name in scores["unseen_classes"]]
    lines += [
        SEPARATING_LINE,
        ["mIoU", f"{scores['miou']:.2f}", about],
        ["FB-IoU", f"{scores['fb_iou']:.2f}", ""],
    ]
    return tabulate(lines, tablefmt="simple", disable_numparse=True, colalign=("left", "right", "left"))


def _origin(result: dict[str, Any]) -> str:
    told, protocol = result["checkpoint"], result["protocol"]
    external = "external" in told
    without = "converted weights" if "converted" in told else "weights as they are"
    steps = without if told.get("steps") is None else f"checkpoint of step {told['steps']}"
    labels = f"labels at {protocol['label_size']}, plan {protocol['plan_sha256'][:12]}"
    return f"external model, {labels}" if external else f"{steps}, {labels}, {result['precision']}"


def one_line(result: dict[str, Any]) -> str:
    """The checkpoint and scores of a test in one line, for a second test of the same training."""
    scores, told = result["scores"], result["checkpoint"]
    interval = "" if scores["interval"] is None else f" +- {scores['interval']:.2f}"
    chosen = result["protocol"]["selection"].partition(" ")[0]
    return (
        f"{chosen} checkpoint, of step {told.get('steps')}: mIoU {scores['miou']:.2f}{interval}, "
        f"FB-IoU {scores['fb_iou']:.2f}"
    )
