"""The interactive window, in open3d."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from pointcentroid.errors import DisplayError, PointCentroidError
from pointcentroid.files import replacing
from pointcentroid.viz.centroid_list import WIDTH, CentroidList, Key, wrapped
from pointcentroid.viz.open3d_scene import (
    balls,
    centroid_radius,
    drawn_points,
    draws_on_cpu,
    eye_to_fit,
    import_open3d,
    offsets,
    painted_surface,
    quiet,
    unlit,
)
from pointcentroid.viz.panel import NO_CENTROID, Drawn, Panel, counted

HELP = {
    "drag": "turn (shift: roll, ctrl: move)",
    "wheel": "nearer, farther",
    "click": "light a centroid up; again: all",
    "up, down": "light the one before, after up",
    "x, i": "hide it; it alone (again: all)",
    "v": "all are visible",
    "e": "apart, and together again",
    "0 1 2 ...": "stage, 0 is the cloud",
    "left, right": "stage before, after",
    "a": "all points / the stage's inputs",
    "t": "next head, then all heads",
    "m": "mesh underneath",
    "n, p": "next, previous file",
    "s": "save a picture",
    "h": "these lines",
    "q": "quit",
}
"""What keys and the mouse do."""

_CLICK = 5  # a press and a release farther apart than so many pixels are a drag
_WHILE_TURNING = 12_000  # points of a larger cloud that are drawn while the scene turns
_SIZE = 1180, 760  # pixels
_SIDE = 19  # the width of the side panel, in font sizes
# Without a graphics card every pixel costs some 150 ns: these draw 10 frames a second on two slow cores.
_WHILE_TURNING_ON_CPU = 2_000
_SIZE_ON_CPU = 1020, 500
_ANGLE = 35.0  # of the view, from top to bottom, in degrees
_NEAR = 14  # pixels from the pointer within which a click finds a point


def show(shapes: Sequence[Callable[[], list[Panel]]], title: str = "pointcentroid") -> list[PointCentroidError]:
    """Open the window and wait until it is closed.

    Args:
        shapes: what to step through: functions that make the panels to see side by side, each called when its turn comes, so
            that a folder opens at once.
        title: of the window.

    Returns:
        Why shapes could not be shown, in their order.

    Raises:
        MissingExtraError: the extra `view` is not installed.
        DisplayError: there is no screen, or a system library is missing.
    """
    open3d = ready()
    gui = open3d.visualization.gui
    with quiet():
        gui.Application.instance.initialize()
        viewer = Viewer(open3d, shapes, title)
        gui.Application.instance.run_one_tick()
    try:
        gui.Application.instance.run()
    except KeyboardInterrupt:
        # A window that is open when Python ends takes the process down with it.
        viewer.window.close()
        gui.Application.instance.run()
        raise
    return [error for _, error in sorted(viewer.failures.items())]


def ready() -> Any:
    """Import open3d and check that there is a screen to open a window on.

    Raises:
        MissingExtraError: the extra `view` is not installed.
        DisplayError: there is no screen, or a system library is missing.
    """
    open3d = import_open3d()
    _need_screen()
    return open3d


def _need_screen() -> None:
    if not sys.platform.startswith("linux"):
        return
    instead = "A page or a picture needs none: --html page.html, --png picture.png"
    if not os.environ.get("DISPLAY"):
        where = "over SSH without a forwarded screen" if os.environ.get("SSH_CONNECTION") else "DISPLAY is not set"
        raise DisplayError(f"there is no screen to open a window on ({where}). {instead}")
    # open3d would end the process where the screen does not answer.
    library = ctypes.CDLL("libX11.so.6")
    library.XOpenDisplay.restype = ctypes.c_void_p
    screen = library.XOpenDisplay(None)
    if not screen:
        raise DisplayError(f"the screen {os.environ['DISPLAY']} does not answer. {instead}")
    library.XCloseDisplay(ctypes.c_void_p(screen))


class Viewer:
    """The window: a scene, a list of centroids, a side panel, keys and mouse, and the state that they change.

    Args:
        open3d: the module.
        shapes: see `show`.
        title: of the window.
    """

    def __init__(self, open3d: Any, shapes: Sequence[Callable[[], list[Panel]]], title: str) -> None:
        self.open3d, self.gui = open3d, open3d.visualization.gui
        self.shapes, self.number = shapes, 0
        self.stage, self.composed, self.head, self.mesh = -1, True, None, False
        self.panels: list[Panel] = []
        self.most, self.problem = 0, ""
        self.failures: dict[int, PointCentroidError] = {}
        self.picked: Key | None = None
        self.hidden: set[Key] = set()
        self.apart, self._awaited = 0.0, False
        self._pressed: tuple[int, int] | None = None
        self.on_cpu = draws_on_cpu()
        self.window = self.gui.Application.instance.create_window(title, *(_SIZE_ON_CPU if self.on_cpu else _SIZE))
        self._build()
        self._open(0)

    # What is on the window

    def _build(self) -> None:
        gui, em = self.gui, self.window.theme.font_size
        self.widget = gui.SceneWidget()
        self.widget.scene = self.open3d.visualization.rendering.Open3DScene(self.window.renderer)
        self.widget.scene.set_background([1.0, 1.0, 1.0, 1.0])
        self.widget.scene.view.set_post_processing(False)
        # Everything carries its own light, and multisampling smooths edges; the rest would halve the frames that a machine
        # without a graphics card draws in a second.
        self.widget.scene.view.set_antialiasing(False)
        self.widget.scene.view.set_shadowing(False)
        self.widget.scene.scene.enable_sun_light(False)
        self.widget.scene.scene.enable_indirect_light(False)
        self.widget.scene.downsample_threshold = _WHILE_TURNING_ON_CPU if self.on_cpu else _WHILE_TURNING
        self.widget.set_view_controls(gui.SceneWidget.Controls.ROTATE_CAMERA)
        self.widget.set_on_mouse(self._on_mouse)
        self.side = gui.Vert(0.4 * em, gui.Margins(0.8 * em, 0.8 * em, 0.8 * em, 0.8 * em))
        self.heading = gui.Label("")
        self.slider = gui.Slider(gui.Slider.INT)
        self.slider.set_on_value_changed(lambda value: self.set_stage(int(value)))
        self.stage_name = gui.Label("")
        self.own_box = gui.Checkbox("the stage's own inputs")
        self.own_box.set_on_checked(self._set_own)
        self.head_list = gui.Combobox()
        self.head_list.set_on_selection_changed(lambda _text, index: self._set_head(index - 1))
        self.mesh_box = gui.Checkbox("mesh underneath")
        self.mesh_box.set_on_checked(self._set_mesh)
        self.said = gui.Label("")
        row = gui.Horiz(0.4 * em)
        for text, act in (("previous", lambda: self._step(-1)), ("next", lambda: self._step(1)), ("save PNG", self.save)):
            button = gui.Button(text)
            button.set_on_clicked(act)
            row.add_child(button)
        self.help = gui.VGrid(2)
        for text in chain.from_iterable(HELP.items()):
            self.help.add_child(gui.Label(text))
        self.help.visible = False
        hint = gui.Label("h: keys")
        for child in (
            *(self.help, self.heading, gui.Label("stage"), self.slider, self.stage_name, self.own_box, gui.Label("head")),
            *(self.head_list, self.mesh_box, self.said, row, hint),
        ):
            self.side.add_child(child)
        self.list = CentroidList(gui, em, self)
        self.window.add_child(self.widget)
        for widget in (*self.list.widgets, self.side):
            self.window.add_child(widget)
        self.window.set_on_layout(self._on_layout)
        self.window.set_on_key(self._on_key)

    def _on_layout(self, context: Any) -> None:
        gui, area = self.gui, self.window.content_rect
        listed, side = self._columns(area.width)
        scene = area.width - listed - side
        self.widget.frame = gui.Rect(area.x, area.y, scene, area.height)
        self.list.place(context, area.x + scene, area.y, listed, area.height)
        self.side.frame = gui.Rect(area.get_right() - side, area.y, side, area.height)

    def _columns(self, whole: int) -> tuple[int, int]:
        """Widths of the list and of the side panel."""
        em = min(self.window.theme.font_size, 2 * whole / 3 / (_SIDE + WIDTH))
        return int(WIDTH * em), int(_SIDE * em)

    # What is shown

    def _open(self, number: int) -> None:
        """Show another shape; one that cannot be shown says why."""
        try:
            panels = self.shapes[number]()
        except PointCentroidError as error:
            self.failures[number] = error
            self.number, self.panels, self.problem = number, [], str(error).encode("utf-8", "replace").decode()
            self._begin()
            return
        self.failures.pop(number, None)
        self.number, self.panels, self.problem = number, panels, ""
        self.most = max(panel.stages for panel in panels)
        self.stage = self.most if self.stage < 0 else min(self.stage, self.most)
        self.slider.set_limits(0, self.most)
        self.mesh_box.enabled = any(panel.mesh is not None for panel in panels)
        self._list_heads()
        self._begin()
        self._look()

    def _look(self) -> None:
        """Look at all panels, from as near as they fit."""
        seen = np.concatenate([panel.cloud + shift for panel, shift in zip(self.panels, offsets(self.panels), strict=True)])
        low, high = seen.min(axis=0), seen.max(axis=0)
        middle = (low + high) / 2
        self.widget.setup_camera(_ANGLE, self.open3d.geometry.AxisAlignedBoundingBox(low - 1, high + 1), middle)
        # One shape is seen from a corner; several from the front.
        direction = np.array([0.5, -0.8, 0.35] if len(self.panels) == 1 else [0.1, -0.93, 0.35])
        size = self.window.size
        aspect = (size.width - sum(self._columns(size.width))) / size.height
        eye = eye_to_fit(seen, middle, direction, np.deg2rad(_ANGLE), aspect)
        self.widget.look_at(middle, eye, np.array([0.0, 0.0, 1.0]))

    def _list_heads(self) -> None:
        self.head_list.clear_items()
        self.head_list.add_item("all heads")
        heads = max((panel.heads(self._stage(panel)) for panel in self.panels), default=0)
        for head in range(heads if heads > 1 else 0):
            self.head_list.add_item(f"head {head}")
        self.head = None

    def _begin(self) -> None:
        """List what is shown now, all of it visible and nothing lit up, and draw it."""
        self.picked, self.hidden = None, set()
        self.list.fill(
            [(panel.title, panel.listed(self._stage(panel), self.composed, self._head(panel))) for panel in self.panels]
        )
        self.draw()

    def _stage(self, panel: Panel) -> int:
        """The stage that a panel shows: a net with fewer stages stays at its last."""
        return min(self.stage, panel.stages)

    def _head(self, panel: Panel) -> int | None:
        """The head that a panel shows: a net with fewer heads shows all of them."""
        return self.head if self.head is not None and self.head < panel.heads(self._stage(panel)) else None

    def _drawn(self, number: int) -> Drawn:
        panel = self.panels[number]
        picked = self.picked[1] if self.picked and self.picked[0] == number else None
        hidden = [centroid for where, centroid in self.hidden if where == number]
        look = self._stage(panel), self.composed, self._head(panel)
        return panel.drawn(*look, picked=picked, hidden=hidden, apart=self.apart)

    def draw(self) -> None:
        """Draw everything anew in the present state."""
        scene, open3d = self.widget.scene, self.open3d
        scene.clear_geometry()
        material = unlit(open3d, 3 * self.window.scaling)
        for number, (panel, shift) in enumerate(zip(self.panels, offsets(self.panels), strict=True)):
            stage, seen = self._stage(panel), self._drawn(number)
            if len(seen.points):
                radius = 0.014 if len(panel.inputs(stage, self.composed)) > 400 else 0.03
                points = drawn_points(open3d, seen.points + shift, seen.colours, radius)
                scene.add_geometry(f"points {number}", points, material, add_downsampled_copy_for_fast_rendering=True)
            if len(seen.balls):
                size = centroid_radius(len(panel.listed(stage, self.composed, self._head(panel))))
                centroids = balls(open3d, seen.balls + shift, seen.ball_colours, size, fine=True)
                scene.add_geometry(f"centroids {number}", centroids, material)
            if self.mesh and panel.mesh is not None and not (self.apart and stage):
                vertices, faces = panel.mesh
                scene.add_geometry(f"mesh {number}", painted_surface(open3d, vertices * 0.995 + shift, faces), material)
        self._say()
        self.widget.force_redraw()

    def _say(self) -> None:
        titles = []
        for panel in self.panels:
            lines = (f"  {name}  {share:.1%}" for name, share in panel.top[:5])
            titles.append("\n".join([wrapped(panel.title), *lines]))
        position = f"{self.number + 1} of {len(self.shapes)}\n" if len(self.shapes) > 1 else ""
        self.heading.text = position + "\n\n".join(titles)
        counts = {sum(n == k and c >= 0 for n, c in self.list.boxes) for k, p in enumerate(self.panels) if self._stage(p)}
        *fewer, most = sorted(counts) or [0]
        self.stage_name.text = (
            " / ".join([*map(str, fewer), counted(most, "centroid")]) if counts else "the cloud" if self.panels else ""
        )
        self.slider.int_value = max(self.stage, 0)
        self.list.update(self.hidden, self.apart)
        self.own_box.checked, self.mesh_box.checked = not self.composed, self.mesh
        self.head_list.selected_index = 0 if self.head is None else self.head + 1
        if self.picked:
            panel = self.panels[self.picked[0]]
            self.said.text = wrapped(panel.describe(self._stage(panel), self.picked[1], self.composed, self._head(panel)))
        else:
            self.said.text = wrapped(self.problem or "click a centroid or a point")
        self.window.set_needs_layout()  # texts have grown or shrunk

    # What changes the state

    def set_stage(self, stage: int) -> None:
        """Show another stage, 0 for the cloud before any."""
        stage = max(0, min(stage, self.most))
        if stage == self.stage or not self.panels:
            return
        self.stage = stage
        self._list_heads()
        self._begin()

    def _set_own(self, own: bool) -> None:
        self.composed = not own
        self._begin()

    def _set_head(self, head: int) -> None:
        self.head = None if head < 0 else head
        self._begin()

    def _set_mesh(self, mesh: bool) -> None:
        self.mesh = mesh
        self.draw()

    def set_apart(self, apart: float) -> None:
        """Move centroids outward, with what goes to them, so many times their distance from the middle."""
        if apart == self.apart:
            return
        self.apart = apart
        if not self._awaited:
            # While the slider moves, its window is being drawn, and asking for more then is lost; one drawing is enough for
            # all that it says until then.
            self._awaited = True
            self.gui.Application.instance.post_to_main_thread(self.window, self._draw_apart)

    def _draw_apart(self) -> None:
        self._awaited = False
        self.draw()

    def light(self, key: Key | None) -> None:
        """Light a centroid up, given as the number of its panel and its own; the one that is lit up, or None: all."""
        self.picked = None if key == self.picked or (key and key[1] == NO_CENTROID) else key
        if self.picked:
            self.hidden.discard(self.picked)
        self.draw()

    def set_shown(self, key: Key, shown: bool) -> None:
        """Show or hide a centroid with what goes to it."""
        self.hidden = self.hidden - {key} if shown else self.hidden | {key}
        self.picked = self.picked if shown or self.picked != key else None
        self.draw()

    def isolate(self, key: Key) -> None:
        """Hide all others of a centroid's panel; if they are hidden already, show them."""
        own = {other for other in self.list.boxes if other[0] == key[0]}
        alone = own - self.hidden == {key}
        self.hidden = (self.hidden - own) | (set() if alone else own - {key})
        self.picked = None
        self.draw()

    def show_all(self) -> None:
        """Show what was hidden, and put the light out."""
        self.picked, self.hidden = None, set()
        self.draw()

    def _light_next(self, by: int) -> None:
        keys = [key for key in self.list.boxes if key[1] != NO_CENTROID and key not in self.hidden]
        if keys:
            first = 0 if by > 0 else -1
            self.light(keys[(keys.index(self.picked) + by) % len(keys) if self.picked in keys else first])

    def _step(self, by: int) -> None:
        if 0 <= self.number + by < len(self.shapes):
            self._open(self.number + by)

    def save(self) -> None:
        """Write the scene as it is seen to the first free name `pointcentroid-1.png`, `-2` ... in the current folder."""
        number = 1
        while (path := Path(f"pointcentroid-{number}.png")).exists():
            number += 1

        def write(image: Any) -> None:
            try:
                with replacing(path) as temporary:
                    ending = temporary.with_suffix(".png")  # open3d goes by the suffix
                    self.open3d.io.write_image(str(ending), image)
                    ending.replace(temporary)
                self.said.text = f"saved {path}"
            except OSError as error:
                self.said.text = wrapped(f"cannot save {path}: {error.strerror or error}")

        self.widget.scene.scene.render_to_image(write)

    # Keys and mouse

    def _on_key(self, event: Any) -> bool:
        if event.type != self.gui.KeyEvent.Type.DOWN:
            return False
        key, names = event.key, self.gui.KeyName
        if ord("0") <= int(key) <= ord("9"):
            self.set_stage(int(key) - ord("0"))
        elif key in (names.LEFT, names.RIGHT):
            self.set_stage(self.stage + (1 if key == names.RIGHT else -1))
        elif key in (names.UP, names.DOWN):
            self._light_next(1 if key == names.DOWN else -1)
        elif key == names.X:
            if self.picked:
                self.set_shown(self.picked, False)
        elif key == names.I:
            if self.picked:
                self.isolate(self.picked)
            elif self.hidden:
                self.show_all()
        elif key == names.V:
            self.show_all()
        elif key == names.E:
            self.set_apart(0.0 if self.apart else 1.0)
        elif key == names.A:
            self._set_own(self.composed)
        elif key == names.T:
            heads = self.head_list.number_of_items - 1
            following = 0 if self.head is None else self.head + 1
            self._set_head(following if following < heads else -1)
        elif key == names.M:
            self._set_mesh(not self.mesh)
        elif key in (names.N, names.P):
            self._step(1 if key == names.N else -1)
        elif key == names.S:
            self.save()
        elif key == names.H:
            self.help.visible = not self.help.visible
            self.window.set_needs_layout()
        elif key in (names.Q, names.ESCAPE):
            self.window.close()
        else:
            return False
        return True

    def _on_mouse(self, event: Any) -> Any:
        kinds = self.gui.MouseEvent.Type
        if event.type == kinds.BUTTON_DOWN:
            self._pressed = (event.x, event.y)
        elif event.type == kinds.BUTTON_UP and self._pressed:
            moved = np.hypot(event.x - self._pressed[0], event.y - self._pressed[1])
            self._pressed = None
            if moved < _CLICK and self.stage > 0:
                self.pick(event.x - self.widget.frame.x, event.y - self.widget.frame.y)
        return self.gui.Widget.EventCallbackResult.IGNORED  # the scene turns as always

    def pick(self, x: float, y: float) -> None:
        """Light up the centroid at a pixel of the scene, or the one that the point there goes to; again, or beside: all."""
        self.light(self._find(x, y))

    def _find(self, x: float, y: float) -> Key | None:
        best: tuple[float, float, Key] | None = None
        for number, shift in enumerate(offsets(self.panels)):
            seen = self._drawn(number)
            for points, centroid in ((seen.balls, seen.numbers), (seen.points, seen.centroids)):
                pixels, depth = self.project(points + shift)
                away = np.hypot(pixels[:, 0] - x, pixels[:, 1] - y)
                # The nearest to the eye of those under the pointer; centroids are larger, so they are found from farther.
                under = np.flatnonzero((away < _NEAR) & (centroid >= 0))
                if len(under):
                    front = under[np.argmin(depth[under] + 0.02 * away[under] / _NEAR)]
                    candidate = (float(depth[front]), float(away[front]), (number, int(centroid[front])))
                    best = min(best, candidate) if best else candidate
        return best and best[2]

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) points -> (N, 2) pixels of the scene, and (N,) depths, the eye's distance along its view."""
        camera, frame = self.widget.scene.camera, self.widget.frame
        seen = np.c_[points, np.ones(len(points))] @ np.asarray(camera.get_view_matrix()).T
        clip = seen @ np.asarray(camera.get_projection_matrix()).T
        unit = clip[:, :2] / clip[:, 3:]
        pixels = np.c_[(unit[:, 0] + 1) / 2 * frame.width, (1 - unit[:, 1]) / 2 * frame.height]
        return pixels, -seen[:, 2]
