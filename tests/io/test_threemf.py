"""3MF: objects that place objects, in one model file or several."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pointcentroid.errors import ReadError
from pointcentroid.io import read, read_parts

from ..meshes import area


def write_3mf(path: Path, models: dict[str, str], item: str = "") -> Path:
    """Write a 3MF file.

    Args:
        path: to write.
        models: what stands in `resources`, by the names of the models; the first is the one to begin with.
        item: what the first one builds.
    """
    spaces = 'xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02"'
    spaces += ' xmlns:p="http://schemas.microsoft.com/3dmanufacturing/production/2015/06"'
    with zipfile.ZipFile(path, "w") as archive:
        for name, resources in models.items():
            build = f"<build>{item}</build>" if name == next(iter(models)) else "<build/>"
            archive.writestr(name, f"<model {spaces}><resources>{resources}</resources>{build}</model>")
    return path


def object_3mf(number: int, sphere: trimesh.Trimesh, kind: str = "model") -> str:
    """A sphere as an object of a 3MF model."""
    corners = "".join(f'<vertex x="{x}" y="{y}" z="{z}"/>' for x, y, z in sphere.vertices.tolist())
    faces = "".join(f'<triangle v1="{a}" v2="{b}" v3="{c}"/>' for a, b, c in sphere.faces.tolist())
    mesh = f"<mesh><vertices>{corners}</vertices><triangles>{faces}</triangles></mesh>"
    return f'<object id="{number}" type="{kind}">{mesh}</object>'


def along_x(step: float) -> str:
    return f'transform="1 0 0 0 1 0 0 0 1 {step} 0 0"'


def nested_3mf(path: Path, sphere: trimesh.Trimesh, depth: int, copies: int) -> Path:
    """A sphere in a row of copies in a row of copies, along x, two apart."""
    objects = [object_3mf(1, sphere)]
    for level in range(1, depth + 1):
        steps = (2 * number * copies ** (level - 1) for number in range(copies))
        parts = "".join(f'<component objectid="{level}" {along_x(step)}/>' for step in steps)
        objects.append(f'<object id="{level + 1}"><components>{parts}</components></object>')
    return write_3mf(path, {"3D/3dmodel.model": "".join(objects)}, f'<item objectid="{depth + 1}"/>')


@pytest.mark.parametrize(("depth", "copies"), [(0, 0), (1, 10), (1, 300), (2, 3), (2, 10), (3, 10), (200, 1)])
def test_all_copies_of_a_3mf_are_placed(tmp_path: Path, sphere: trimesh.Trimesh, depth: int, copies: int) -> None:
    path = nested_3mf(tmp_path / "a.3mf", sphere, depth, copies)
    many = copies**depth
    shape = read(path)
    assert area(path) == pytest.approx(many * sphere.area, rel=1e-4)
    middles = shape.vertices.reshape(many, -1, 3).mean(axis=1)
    assert middles == pytest.approx(np.outer(2 * np.arange(many), (1, 0, 0)), abs=1e-6)


def test_transforms_of_a_3mf_are_applied_from_the_inside_out(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    """Rows times matrices, as the standard has it: a turn about z inside, then a step along x."""
    component = '<component objectid="1" transform="0 1 0 -1 0 0 0 0 1 0 3 0"/>'
    objects = object_3mf(1, sphere) + f'<object id="2"><components>{component}</components></object>'
    read_back = read(write_3mf(tmp_path / "a.3mf", {"3D/3dmodel.model": objects}, f'<item objectid="2" {along_x(5)}/>'))
    x, y, z = sphere.vertices.T
    assert read_back.vertices == pytest.approx(np.stack([5 - y, 3 + x, z], axis=1), abs=1e-6)


def test_components_of_a_3mf_in_other_files_are_the_ones_they_name(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    """As slicers write projects: the meshes of an object in one file, ids that count from one in each."""
    larger = sphere.copy().apply_scale(2)
    names = [("one", 1, 0), ("one", 2, 10), ("two", 1, 20)]
    parts = "".join(
        f'<component p:path="/3D/Objects/{name}.model" objectid="{number}" {along_x(step)}/>' for name, number, step in names
    )
    models = {
        "3D/3dmodel.model": f'<object id="1"><components>{parts}</components></object>',
        "3D/Objects/one.model": object_3mf(1, sphere) + object_3mf(2, larger),
        "3D/Objects/Two.model": object_3mf(1, larger),
    }
    shape = read(write_3mf(tmp_path / "a.3mf", models, '<item objectid="1"/>'))
    for found, mesh, step in zip(np.split(shape.vertices, 3), (sphere, larger, larger), (0, 10, 20), strict=True):
        assert found == pytest.approx(mesh.vertices + np.array([step, 0, 0]), abs=1e-6)


@pytest.mark.parametrize("relations", ["<Relationships/>", "<Relationships>", "<!DOCTYPE x><x/>", ""])
def test_relations_that_say_nothing_leave_the_usual_place(tmp_path: Path, sphere: trimesh.Trimesh, relations: str) -> None:
    path = write_3mf(tmp_path / "a.3mf", {"3D/3dmodel.model": object_3mf(1, sphere)}, '<item objectid="1"/>')
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("_rels/.rels", relations)
    assert area(path) == pytest.approx(sphere.area, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("Models/Cup.model", "/models/cup.model"),
        ("Models/Cup.model", "./Models/../Models/Cup.model"),
        ("Models/My cup.model", "Models/My%20cup.model"),
        ("Models/My%20cup.model", "/Models/My%20cup.model"),
    ],
)
def test_a_3mf_begins_where_its_relations_say(tmp_path: Path, sphere: trimesh.Trimesh, name: str, target: str) -> None:
    path = write_3mf(tmp_path / "a.3mf", {name: object_3mf(7, sphere)}, '<item objectid="7"/>')
    kind = "http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"
    relation = f'<Relationship Type="{kind}" Target="{target}"/>'
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("_rels/.rels", f"<Relationships>{relation}</Relationships>")
    assert read(path).vertices == pytest.approx(sphere.vertices, abs=1e-6)


@pytest.mark.parametrize("aside", ["support", "solidsupport", "other"])
def test_what_supports_a_print_is_no_part_of_the_shape(tmp_path: Path, sphere: trimesh.Trimesh, aside: str) -> None:
    larger = sphere.copy().apply_scale(2)
    objects, both = object_3mf(1, sphere) + object_3mf(2, larger, aside), '<item objectid="1"/><item objectid="2"/>'
    assert area(write_3mf(tmp_path / "a.3mf", {"3D/3dmodel.model": objects}, both)) == pytest.approx(sphere.area, rel=1e-4)
    alone = write_3mf(tmp_path / "b.3mf", {"3D/3dmodel.model": objects}, '<item objectid="2"/>')
    assert area(alone) == pytest.approx(larger.area, rel=1e-4)


def test_what_a_slicer_marks_as_unprinted_is_no_part_of_the_shape(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    larger = sphere.copy().apply_scale(2)
    objects = object_3mf(1, sphere) + object_3mf(2, larger)
    for one, other, expected in (("1", "0", sphere.area), ("1", "1", sphere.area + larger.area), ("0", "0", None)):
        build = f'<item objectid="1" printable="{one}"/><item objectid="2" printable="{other}"/>'
        path = write_3mf(tmp_path / "a.3mf", {"3D/3dmodel.model": objects}, build)
        assert area(path) == pytest.approx(expected or sphere.area + larger.area, rel=1e-4)


def test_what_a_support_is_made_of_is_no_part_of_the_shape(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    support = '<object id="2" type="support"><components><component objectid="3"/></components></object>'
    objects = object_3mf(1, sphere) + object_3mf(3, sphere.copy().apply_scale(2)) + support
    path = write_3mf(tmp_path / "a.3mf", {"3D/3dmodel.model": objects}, '<item objectid="1"/><item objectid="2"/>')
    assert area(path) == pytest.approx(sphere.area, rel=1e-4)


@pytest.mark.parametrize(
    ("objects", "item", "message"),
    [
        ('<object id="2"><components><component objectid="2"/></components></object>', 2, "a component is part of itself"),
        (
            '<object id="2"><components><component objectid="9"/></components></object>',
            2,
            "object '9', which 3d/3dmodel.model",
        ),
        (
            '<object id="2"><components>'
            + 3000 * '<component objectid="2"/>'
            + "</components></object>"
            + "".join(f'<object id="{number}"/>' for number in range(3, 103)),
            2,
            "places more than 100000 objects",
        ),
        ("", 4, "object '4', which 3d/3dmodel.model does not hold"),
        (
            '<object id="2"><components><component objectid="1" p:path="/a.model"/></components></object>',
            2,
            "holds no a.model",
        ),
        ('<object id="2"><components><component objectid="1" transform="1 0"/></components></object>', 2, "reshape"),
        ('<object id="2"><mesh><vertices><vertex x="1" y="a" z="2"/></vertices></mesh></object>', 2, "to float: 'a'"),
        (
            '<object id="2"><mesh><triangles><triangle v1="0" v2="1" v3="2"/></triangles></mesh></object>',
            2,
            "object 2 has 0",
        ),
        ('<object id="2"><mesh><vertices><vertex x="1" z="2"/></vertices></mesh></object>', 2, "an element without 'y'"),
        ('<object id="2"><mesh></object>', 2, "mismatched tag"),
        ("", None, "builds none of its 1 objects"),
    ],
)
def test_a_damaged_3mf_says_what_is_wrong(
    tmp_path: Path, sphere: trimesh.Trimesh, objects: str, item: int | None, message: str
) -> None:
    build = "" if item is None else f'<item objectid="{item}"/>'
    path = write_3mf(tmp_path / "a.3mf", {"3D/3dmodel.model": object_3mf(1, sphere) + objects}, build)
    with pytest.raises(ReadError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("namespace", "says"),
    [
        ("http://schemas.microsoft.com/3dmanufacturing/material/2015/02", ""),
        ("http://schemas.microsoft.com/3dmanufacturing/beamlattice/2017/02", "needs the 3MF extension http.*beamlattice"),
        ("http://schemas.3mf.io/3dmanufacturing/booleanoperations/2023/07", "needs the 3MF extension http.*boolean"),
    ],
)
def test_what_a_3mf_needs_and_is_not_read_is_said(
    tmp_path: Path, sphere: trimesh.Trimesh, namespace: str, says: str
) -> None:
    """Else a part of the shape would be missing without a word."""
    path = write_3mf(tmp_path / "a.3mf", {"3D/3dmodel.model": object_3mf(1, sphere)}, '<item objectid="1"/>')
    with zipfile.ZipFile(path) as archive:
        text = archive.read("3D/3dmodel.model").decode()
    with zipfile.ZipFile(path, "w") as archive:
        needed = f'<model xmlns:e="{namespace}" requiredextensions="p e" '
        archive.writestr("3D/3dmodel.model", text.replace("<model ", needed, 1))
    if says:
        with pytest.raises(ReadError, match=says):
            read(path)
    else:
        assert area(path) == pytest.approx(sphere.area, rel=1e-4)


def test_elements_nested_without_end_fill_no_memory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.3mf", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("3D/3dmodel.model", "<a>" * 1000)
    with pytest.raises(ReadError, match="nested more than 64 deep"):
        read(tmp_path / "a.3mf")


def test_a_3mf_that_defines_entities_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.3mf", "w") as archive:
        archive.writestr("3D/3dmodel.model", '<!DOCTYPE model [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><model>&b;</model>')
    with pytest.raises(ReadError, match="holds a DOCTYPE"):
        read(tmp_path / "a.3mf")


def test_only_what_a_mesh_holds_itself_is_its_geometry(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    slices = '<slicestack id="9"><slice><vertices><vertex x="9" y="9"/></vertices></slice></slicestack>'
    path = write_3mf(tmp_path / "a.3mf", {"3D/3dmodel.model": slices + object_3mf(1, sphere)}, '<item objectid="1"/>')
    assert read(path).vertices == pytest.approx(sphere.vertices, abs=1e-6)


def test_a_3mf_that_places_more_than_is_read_is_an_error(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    with pytest.raises(ReadError, match="places more than 100000 objects"):
        read(nested_3mf(tmp_path / "a.3mf", sphere, depth=6, copies=10))
    for many in (
        '<object id="2"/>' * 100_001,
        f'<object id="2"><components>{"<component/>" * 100_001}</components></object>',
    ):
        with pytest.raises(ReadError, match="holds more than 100000 objects, components and items"):
            read(write_3mf(tmp_path / "a.3mf", {"3D/3dmodel.model": many + object_3mf(1, sphere)}, '<item objectid="1"/>'))


def test_what_a_3mf_places_are_its_parts(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    named = object_3mf(1, sphere).replace('id="1"', 'id="1" name="wheel"')
    placed = f'<component objectid="1" {along_x(10)}/><component objectid="2"/>'
    both = f'<object id="3" name="car"><components>{placed}</components></object>'
    objects = f"{named}{object_3mf(2, sphere)}{both}{object_3mf(4, sphere, kind='support')}"
    items = f'<item objectid="3"/><item objectid="1" {along_x(20)}/><item objectid="4"/>'
    path = write_3mf(tmp_path / "a.3mf", {"3D/3dmodel.model": objects}, items)
    parted = read_parts(path)
    assert parted is not None
    assert parted.names == ["wheel", "object 2", "wheel"]
    shape = read(path)
    np.testing.assert_array_equal(parted.shape.vertices, shape.vertices)
    np.testing.assert_array_equal(parted.shape.faces, shape.faces)
    for number, x in enumerate([10, 0, 20]):
        corners = shape.vertices[shape.faces[parted.parts == number]]
        assert len(corners) == len(sphere.faces)
        assert corners[..., 0].mean() == pytest.approx(x, abs=1e-3)
