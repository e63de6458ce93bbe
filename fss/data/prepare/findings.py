"""Problems in people's annotations, and the choice to leave an annotation or its whole image out."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fss.errors import UserError


@dataclass
class Findings:
    """Lines to print, by what they are about.

    Attributes:
        leave_out: "image": an annotation that cannot be drawn costs its image; "annotation": it is left out
            alone, and what little reaches over the border is cut off; None: as "image", without a choice.
        notes: the format that was recognised, and files that were passed over.
        left_out: annotations that are left out of images that stay.
        problems: images that are left out.
    """

    leave_out: str | None = None
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def lenient(self) -> bool:
        """Whether single annotations are left out."""
        return self.leave_out == "annotation"

    def unusable(self, what: str) -> None:
        """Leave an annotation out, or, by raising `UserError`, its image."""
        if not self.lenient:
            choice = "; mend it, or leave it out alone with --leave-out annotation" if self.leave_out else ""
            raise UserError(what + choice)
        self.left_out.append(what)

    def cutter(self, where: str) -> Callable[[float], None] | None:
        """A function that notes how many pixels of an annotation are cut off; None where none may be."""
        note = lambda over: self.left_out.append(f"{where}, what lies over the border ({over:.1f} pixels)")  # noqa: E731
        return note if self.lenient else None

    def empty(self, what: str) -> None:
        """Leave an annotation out that marks nothing, which changes no mask."""
        self.left_out.append(f"{what} marks nothing")


class Nothing(Exception):
    """An outline that marks nothing at all."""
