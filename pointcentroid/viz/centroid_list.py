"""The column of the window that lists centroids, and moves them apart."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from pointcentroid.viz.panel import Listed

WIDTH = 17
"""Of the column, in font sizes."""

Key = tuple[int, int]
"""The number of a panel, and that of one of its centroids."""

_MOST_APART = 2.0
_CHARACTERS = 20  # of a name in one line


class Actions(Protocol):
    """What the list may ask for, see `window.Viewer`."""

    def set_apart(self, apart: float) -> None: ...
    def set_shown(self, key: Key, shown: bool) -> None: ...
    def light(self, key: Key | None) -> None: ...
    def isolate(self, key: Key) -> None: ...
    def show_all(self) -> None: ...


class CentroidList:
    """A line for each centroid: its colour, which lights it up, whether it is shown, name and size, what shows it alone.

    Args:
        gui: the module of open3d.
        em: pixels of the font.
        actions: what happens.

    Attributes:
        widgets: what it consists of, for the window.
        boxes: the check boxes, in the order of the list.
    """

    def __init__(self, gui: Any, em: float, actions: Actions) -> None:
        self.gui, self.em, self.actions = gui, em, actions
        self.boxes: dict[Key, Any] = {}
        self.slider = gui.Slider(gui.Slider.DOUBLE)
        self.slider.set_limits(0, _MOST_APART)
        self.slider.set_on_value_changed(actions.set_apart)
        all_of_them = gui.Button("show all")
        all_of_them.vertical_padding_em = 0
        all_of_them.set_on_clicked(actions.show_all)
        self.lines = gui.WidgetProxy()
        self.head = gui.Vert(0.4 * em, gui.Margins(0.8 * em, 0.8 * em, 0, 0.4 * em))
        for child in (gui.Label("explode"), self.slider, all_of_them):
            self.head.add_child(child)
        self.widgets = self.head, self.lines

    def place(self, context: Any, x: int, y: int, width: int, height: int) -> None:
        """Fill a rectangle of the window, in pixels."""
        top = self.head.calc_preferred_size(context, self.gui.Widget.Constraints()).height
        self.head.frame = self.gui.Rect(x, y, width, top)
        self.lines.frame = self.gui.Rect(x, y + top, width, height - top)

    def fill(self, panels: list[tuple[str, list[Listed]]]) -> None:
        """List the centroids of panels, given as a heading, which one panel needs not, and lines."""
        self.boxes = {}
        margins = self.gui.Margins(0.8 * self.em, 0, 1.4 * self.em, 0.4 * self.em)  # beside the scroll bar
        lines = self.gui.ScrollableVert(0.2 * self.em, margins)
        for number, (title, listed) in enumerate(panels):
            if listed and len(panels) > 1:
                lines.add_child(self.gui.Label(wrapped(title, _CHARACTERS + 6)))
            for line in listed:
                lines.add_child(self._line((number, line.number), line))
        self.lines.set_widget(lines)

    def update(self, hidden: Collection[Key], apart: float) -> None:
        """Show a state that was not reached through the list."""
        self.slider.double_value = apart
        for key, box in self.boxes.items():
            box.checked = key not in hidden

    def _line(self, key: Key, listed: Listed) -> Any:
        gui, actions = self.gui, self.actions
        name = listed.name if len(listed.name) <= _CHARACTERS else listed.name[: _CHARACTERS - 2] + ".."
        swatch, box, only = gui.Button(" "), gui.Checkbox(f"{name}  {listed.told_share}"), gui.Button("only")
        swatch.background_color, swatch.tooltip = gui.Color(*map(float, listed.colour)), "light it up"
        swatch.set_on_clicked(lambda: actions.light(key))
        box.checked, self.boxes[key], box.tooltip = True, box, listed.name
        box.set_on_checked(lambda shown: actions.set_shown(key, shown))
        only.set_on_clicked(lambda: actions.isolate(key))
        swatch.vertical_padding_em = only.vertical_padding_em = 0
        line = gui.Horiz(0.4 * self.em)
        for child in (swatch, box):
            line.add_child(child)
        line.add_stretch()
        line.add_child(only)
        return line


def wrapped(text: str, width: int = 34) -> str:
    """Break a text into lines, in the middle of a word where it has to be: paths have no spaces."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
            continue
        lines += [word[start : start + width] for start in range(0, len(word), width)]
    return "\n".join(lines)
