"""`pointcentroid view` and `compare`: see which points went to which centroid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pointcentroid.cli import options
from pointcentroid.errors import ConfigError

if TYPE_CHECKING:
    from pointcentroid.errors import PointCentroidError
    from pointcentroid.viz.panel import Panel
    from pointcentroid.viz.picture import Row

_MOST, _MOST_RECONSTRUCTED = 12, 4
"""Shapes in one page or picture, and reconstructions in a page: browsers draw no more than 16 scenes at a time, and a
reconstruction is three."""

_POINTS = 2048
"""That a reconstruction has, if nothing else is asked for."""

Html = Annotated[Path | None, typer.Option(metavar="FILE", help="Write one self-contained page, for any browser.")]
Png = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a picture; needs no screen.")]
Gif = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Draw a turntable, about half a minute a shape; needs no screen.")
]
Views = Annotated[int, typer.Option(min=1, max=12, help="Directions to look from in the picture, in rows.")]
Stages = Annotated[str, typer.Option(help="Stages in picture and turntable: all, or numbers such as 0,3 (0: the cloud).")]
Mesh = Annotated[bool, typer.Option("--mesh", help="Begin the picture with the mesh itself.")]


def view(
    paths: options.Paths,
    recursive: options.Recursive = False,
    weights: options.Weights = "parts",
    up: options.Up = "auto",
    html: Html = None,
    png: Png = None,
    gif: Gif = None,
    views: Views = 1,
    stages: Stages = "all",
    mesh: Mesh = False,
    names: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A file with named parts; centroids get the names of the parts they lie on."),
    ] = None,
    points: options.Points = _POINTS,
    device: options.Device = "auto",
) -> None:
    """See the centroids of shapes: in a window, or with --html, --png, --gif in a file.

    In the window, n and p step through the files, h lists the keys. Files of one class have one colour for the same part;
    --names lends the parts' names. With --weights autoencoder: the original, the centroids with the patches they grow, and
    the reconstruction, side by side.
    Exit code 0: all done; 1: some files could not be read; 2: none could, or wrong usage.
    """
    from pointcentroid.cli.inputs import expand
    from pointcentroid.errors import require
    from pointcentroid.weights import find_weights, read_card

    require("viewing", "view", "torch")
    chosen = _stages(stages)
    files = expand(paths, recursive)
    outputs = [path for path in (html, png, gif) if path]
    if outputs and len(files) > _MOST:
        raise typer.BadParameter(
            f"{outputs[0]} can show {_MOST} shapes, found {len(files)}; name fewer, or show them in a window"
        )
    _check(views, chosen, mesh, html=html, png=png, gif=gif)
    reconstructs = read_card(find_weights(weights)).model.kind == "autoencoder"
    if html and reconstructs and len(files) > _MOST_RECONSTRUCTED:
        raise typer.BadParameter(f"{html} can show {_MOST_RECONSTRUCTED} reconstructions, found {len(files)}; name fewer")
    if names and outputs and not html:
        raise typer.BadParameter("names stand in the window and in --html, not in pictures", param_hint="--names")
    if points != _POINTS and not reconstructs:
        raise typer.BadParameter("belongs to --weights that reconstruct", param_hint="--points")
    if reconstructs and (chosen or mesh or names):
        raise typer.BadParameter(
            "--stages, --mesh and --names are for weights that classify; a reconstruction has its own columns"
        )
    if not outputs:
        from pointcentroid.viz.window import ready

        ready()  # what is missing is better said now than after the net is loaded
    if reconstructs:
        from pointcentroid.predict.reconstruct import side_by_side

        panels_of, rows = _reconstructions(weights, device, up, points), side_by_side
    else:
        panels_of, rows = _explanations(weights, device, up, names), _by_stages(chosen, mesh)

    def opened(file: str) -> Callable[[], list[Panel]]:
        return lambda: panels_of(file)

    shapes = [opened(file) for file in files]
    if len(files) == 1:
        only = shapes[0]()  # what cannot be read is said here, not in an empty window
        shapes = [lambda: only]
    _deliver(shapes, html, png, gif, views, rows)


def _explanations(weights: str, device: str, up: Any, names: str | None) -> Callable[[str], list[Panel]]:
    from pointcentroid.cli.inputs import parted_example, remark_on_kinds
    from pointcentroid.predict.loading import load
    from pointcentroid.predict.naming import labelled
    from pointcentroid.predict.split import centroid_names
    from pointcentroid.viz.panel import ClassColours, Panel

    predictor, colours = load(weights, device), ClassColours()
    lender = parted_example(predictor, names, up) if names else None
    example = labelled(*lender) if lender else None

    def panels(file: str) -> list[Panel]:
        seen = predictor.explain(file, up=up)
        if lender:
            remark_on_kinds(lender[0].prediction, seen.prediction)
        return [colours.lend(Panel(seen, names=centroid_names(seen, example)))]

    return panels


def _reconstructions(weights: str, device: str, up: Any, points: int) -> Callable[[str], list[Panel]]:
    from pointcentroid.predict.reconstruct import Reconstructor, panels

    reconstructor = Reconstructor(weights, device)

    def three(file: str) -> list[Panel]:
        original, patches, made = panels(reconstructor(file, points, up=up))
        patches.like = original  # a centroid and its patch have one colour
        return [original, patches, made]

    return three


def _by_stages(stages: list[int] | None, mesh: bool) -> Callable[[list[Panel]], list[Row]]:
    def rows(panels: list[Panel]) -> list[Row]:
        from pointcentroid.viz.picture import stage_rows

        return stage_rows(panels, stages, mesh)

    return rows


def compare(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The shape.")],
    nets: Annotated[
        list[str],
        typer.Option(
            "--with",
            metavar="NAME|FILE[,KEY=VALUE...]",
            help="Weights, twice or more; settings of the encoder may be changed: small,initialiser=voxel.",
        ),
    ],
    up: options.Up = "auto",
    html: Html = None,
    png: Png = None,
    gif: Gif = None,
    views: Views = 1,
    stages: Stages = "all",
    mesh: Mesh = False,
    device: options.Device = "auto",
) -> None:
    """See one shape through several nets, side by side.

    For example: compare chair.off --with small --with small,initialiser=random.
    """
    from pointcentroid.errors import require
    from pointcentroid.predict.loading import load
    from pointcentroid.viz.panel import Panel

    require("viewing", "view", "torch")
    chosen = _stages(stages)
    if not 2 <= len(nets) <= _MOST:
        raise typer.BadParameter(f"expected 2 to {_MOST} nets to compare, found {len(nets)}", param_hint="--with")
    _check(views, chosen, mesh, html=html, png=png, gif=gif)
    if not (html or png or gif):
        from pointcentroid.viz.window import ready

        ready()
    panels = []
    for net in nets:
        name, *settings = net.split(",")
        changes: dict[str, Any] = dict(map(_setting, settings))
        if own := changes.keys() & {"device", "runtime", "weights"}:
            raise typer.BadParameter(f"{min(own)} is no setting of the encoder", param_hint="--with")
        explanation = load(name, device, **changes).explain(file, up=up)
        prediction = explanation.prediction
        title = ",".join([Path(name).name, *settings])
        panels.append(Panel(explanation, f"{title}: {prediction.label} {prediction.confidence:.0%}"))
        panels[-1].like = panels[0] if len(panels) > 1 else None  # one shape: the same part has the same colour
    _deliver([lambda: panels], html, png, gif, views, _by_stages(chosen, mesh))


def _setting(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"expected KEY=VALUE, found {text!r}")
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, value


def _check(views: int, stages: list[int] | None, mesh: bool, **outputs: Path | None) -> None:
    """Refuse files that cannot be written or are called something else, and settings of pictures without a picture."""
    from pointcentroid.cli.output import check_writable

    if views != 1 and not outputs["png"]:
        raise typer.BadParameter("belongs to --png, which is not there", param_hint="--views")
    if (stages or mesh) and not (outputs["png"] or outputs["gif"]):
        raise typer.BadParameter(
            "belongs to --png and --gif, and neither is there", param_hint="--mesh" if mesh else "--stages"
        )

    for kind, path in outputs.items():
        check_writable(path, f"--{kind}")
        if path and path.suffix.lower() != f".{kind}":
            raise typer.BadParameter(f"expected a name that ends in .{kind}, found {path.name}", param_hint=f"--{kind}")


def _deliver(
    shapes: list[Callable[[], list[Panel]]],
    html: Path | None,
    png: Path | None,
    gif: Path | None,
    views: int,
    rows: Callable[[list[Panel]], list[Row]],
) -> None:
    """Write what was asked for; open the window if nothing was."""
    from pointcentroid.cli.output import end, tracked

    if not (html or png or gif):
        from pointcentroid.viz.window import show

        errors = show(shapes)
        _tell(errors, len(shapes))
        end(Counter(all=len(shapes), failed=len(errors)), "read")
        return

    def watch(drawings: Iterable[Any], total: int) -> Iterable[Any]:
        return tracked(drawings, total, "drawing")

    shown, failed = _read(shapes)
    drawn = [row for panels in shown for row in rows(panels)] if png or gif else []  # first: they may refuse the stages
    if html:
        from pointcentroid.viz.page import write_page

        write_page([panel for panels in shown for panel in panels], html)
        typer.echo(html)
    if png:
        from pointcentroid.viz.picture import write_picture

        write_picture(drawn, png, views=views, watch=watch)
        typer.echo(png)
    if gif:
        from pointcentroid.viz.picture import write_turntable

        write_turntable(drawn, gif, watch=watch)
        typer.echo(gif)
    end(Counter(all=len(shapes), failed=failed), "read")


def _read(shapes: list[Callable[[], list[Panel]]]) -> tuple[list[list[Panel]], int]:
    """The panels of all shapes that can be read, and how many cannot; one at least can."""
    from pointcentroid.errors import MissingExtraError, ReadError

    shown: list[list[Panel]] = []
    errors: list[PointCentroidError] = []
    for shape in shapes:
        try:
            shown.append(shape())
        except (ReadError, MissingExtraError) as error:
            errors.append(error)
    _tell(errors, len(shapes))
    return shown, len(errors)


def _tell(errors: list[PointCentroidError], count: int) -> None:
    """Say why some of so many shapes could not be read; where none could, raise the last reason."""
    from pointcentroid.cli.output import note

    none = len(errors) == count
    for error in errors[:-1] if none else errors:
        note(str(error))
    if none:
        raise errors[-1]


def _stages(text: str) -> list[int] | None:
    if text == "all":
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"expected all, or numbers such as 0,3; found {text!r}", param_hint="--stages") from None
