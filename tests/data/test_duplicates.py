import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from groundglass.data.case import Case
from groundglass.data.catalogue import find_cases
from groundglass.data.cutting import cut_case
from groundglass.data.duplicates import SAME_ANATOMY, SimilarSlices, closest_pairs, join
from groundglass.scan.phantom import chest_phantom

SIZE = (160, 192)
UNRELATED = 5
COPIED = 2


def enlarged(picture: Image.Image, factor: float) -> Image.Image:
    return picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.Resampling.BICUBIC)


def cropped(picture: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Cut these shares of its width and height off a picture."""
    width, height = picture.size
    return picture.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


def as_jpeg(picture: Image.Image, quality: int = 60) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def mirrored(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same": lambda picture: picture,
    "rolled": lambda picture: Image.fromarray(np.roll(np.asarray(picture), (9, -12), (0, 1))),
    "cropped": lambda picture: cropped(picture, 0.06, 0.02, 0, 0.05),
    "smaller": lambda picture: enlarged(picture, 0.85),
    "larger": lambda picture: enlarged(picture, 1.15),
    "wider window": lambda picture: picture.point(lambda level: round(0.7 * level + 40)),
    "brighter": lambda picture: picture.point(lambda level: round(255 * (level / 255) ** 0.75)),
    "mirrored": mirrored,
    "JPEG": as_jpeg,
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(1.2)),
    "turned": lambda picture: picture.rotate(4, Image.Resampling.BICUBIC),
    "stretched": lambda picture: picture.resize((round(1.08 * picture.width), picture.height)),
    "mirrored, cropped, smaller, darker JPEG": lambda picture: as_jpeg(
        enlarged(cropped(mirrored(picture), 0.04, 0.03, 0, 0), 0.9).point(lambda level: round(0.8 * level + 20))
    ),
}


def cut_pictures(pictures: Sequence[Image.Image], folder: Path) -> NDArray[np.int16]:
    """Cut pictures into the slices that a prepared folder would hold."""
    slices = []
    for number, picture in enumerate(pictures):
        image, mask = folder / f"{number}.png", folder / f"{number}_mask.png"
        picture.convert("L").save(image)
        Image.new("L", picture.size).save(mask)
        slices.append(cut_case(Case(f"pairs/{number}", f"pairs/{number}", image, mask), SIZE).hu)
    return np.concatenate(slices)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """A slice through the hila of each of five phantoms, in a lung window."""
    phantoms = (chest_phantom(seed, (3, 240, 300), (12.0, 288.0, 380.0)) for seed in range(UNRELATED))
    planes = (phantom.scan.values[1].astype(np.float32) for phantom in phantoms)
    return [Image.fromarray(np.clip((plane + 1250) / 1500 * 255, 0, 255).astype(np.uint8)) for plane in planes]


@pytest.fixture(scope="module")
def unrelated_slices(pictures: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.int16]:
    return cut_pictures(pictures, tmp_path_factory.mktemp("unrelated"))


def one_patient_each(count: int) -> NDArray[np.str_]:
    return np.array([f"slices/{number:03}" for number in range(count)])


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.thorough
def test_a_changed_copy_is_found_among_unrelated_slices(
    name: str, pictures: list[Image.Image], unrelated_slices: NDArray[np.int16], tmp_path: Path
) -> None:
    copy = cut_pictures([COPIES[name](pictures[COPIED])], tmp_path)
    pairs = closest_pairs(np.concatenate([unrelated_slices, copy]), one_patient_each(UNRELATED + 1))
    same = [(pair.first, pair.second, pair.mirrored) for pair in pairs if pair.similarity >= SAME_ANATOMY]
    assert same == [(COPIED, UNRELATED, name.startswith("mirrored"))]


def test_unrelated_slices_are_listed_below_the_limit_in_descending_order(unrelated_slices: NDArray[np.int16]) -> None:
    pairs = closest_pairs(unrelated_slices, one_patient_each(UNRELATED))
    assert len(pairs) == UNRELATED * (UNRELATED - 1) // 2
    assert max(pair.similarity for pair in pairs) < SAME_ANATOMY - 0.03
    assert [pair.similarity for pair in pairs] == sorted((pair.similarity for pair in pairs), reverse=True)
    assert all(pair.first < pair.second for pair in pairs)


def test_two_groups_have_one_pair_and_a_single_group_has_none(unrelated_slices: NDArray[np.int16]) -> None:
    hu = np.concatenate([unrelated_slices[:3], unrelated_slices[:3]])
    pairs = closest_pairs(hu, np.array(["a", "a", "a", "b", "b", "a"]))
    assert [(pair.first, pair.second) for pair in pairs] in ([(0, 3)], [(1, 4)])
    assert closest_pairs(hu, np.array(["a"] * 6)) == ()


@pytest.mark.thorough
def test_all_near_duplicates_are_returned_even_if_they_are_more_than_count(unrelated_slices: NDArray[np.int16]) -> None:
    pairs = closest_pairs(
        np.concatenate([unrelated_slices, unrelated_slices]), one_patient_each(2 * UNRELATED), count=2
    )
    assert {(pair.first, pair.second) for pair in pairs} == {(k, k + UNRELATED) for k in range(UNRELATED)}


@pytest.mark.parametrize("fill", [-1000, 40])
def test_slices_without_lung_are_not_compared(fill: int, unrelated_slices: NDArray[np.int16]) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(fill, 20, (2, *SIZE)).astype(np.int16)
    flat = np.full((2, *SIZE), fill, np.int16)
    pairs = closest_pairs(np.concatenate([unrelated_slices[:1], noise, flat]), one_patient_each(5))
    assert pairs == ()


def test_slices_too_coarse_to_show_vessels_are_not_compared(unrelated_slices: NDArray[np.int16]) -> None:
    coarse = unrelated_slices[:, ::3, ::3]
    assert closest_pairs(np.concatenate([coarse, coarse]), one_patient_each(2 * UNRELATED)) == ()


def similar(first: int, second: int, above: float = 0.1) -> SimilarSlices:
    return SimilarSlices(first, second, SAME_ANATOMY + above, mirrored=False)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], "a b b c d"),
        ([similar(0, 3, -0.01)], "a b b c d"),
        ([similar(0, 3, 0.0)], "a+c b b a+c d"),
        ([similar(0, 1)], "a+b a+b a+b c d"),
        ([similar(0, 1), similar(2, 3)], "a+b+c a+b+c a+b+c a+b+c d"),
        ([similar(3, 4), similar(0, 2)], "a+b a+b a+b c+d c+d"),
    ],
)
def test_join_connects_groups_through_any_of_their_slices(pairs: list[SimilarSlices], expected: str) -> None:
    joined = join(np.array(["a", "b", "b", "c", "d"]), pairs)
    assert joined.tolist() == expected.split()


def test_the_name_of_more_than_eight_joined_groups_is_shortened() -> None:
    joined = join(one_patient_each(200), [similar(k, k + 1) for k in range(199)])
    assert set(joined.tolist()) == {"+".join(one_patient_each(6)) + "+194 more"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_known_duplicates_are_found_in_the_real_data_and_no_two_other_volumes(data: Path, tmp_path: Path) -> None:
    cases = find_cases(data / "medseg", data / "coronacases")
    slices_of = {case.name: cut_case(case, SIZE).hu for case in cases}
    names = [name for name, hu in slices_of.items() for _ in hu]
    single = [case.image for case in cases if case.source == "slices"][:: len(COPIES)][: len(COPIES)]
    originals = [f"slices/{path.stem}" for path in single]
    copies = [change(Image.open(path)) for path, change in zip(single, COPIES.values(), strict=False)]
    hu = np.concatenate([*slices_of.values(), cut_pictures(copies, tmp_path)])
    groups = np.array([*names, *(f"copy of {name}" for name in originals)])

    found = [pair for pair in closest_pairs(hu, groups) if pair.similarity >= SAME_ANATOMY]
    pairs = {tuple(sorted((str(groups[pair.first]), str(groups[pair.second])))) for pair in found}
    assert {(f"copy of {name}", name) for name in originals} <= pairs
    assert ("volumes/2", "volumes/3") in pairs
    assert ("slices/010", "slices/043") in pairs
    one_patient = {("volumes/2", "volumes/3"), ("volumes/6", "volumes/7")}
    assert not {pair for pair in pairs - one_patient if any("volumes" in name or "corona" in name for name in pair)}
