"""The catalogue: the sets that the paper reports on, and what is known of each."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from convlora.errors import SettingsError

ARCHIVES = "https://automl-mm-bench.s3.amazonaws.com/semantic_segmentation/"
"""Where the archives of the released code lie."""

_SHOWN_ON_REQUEST = "stated by the set's authors, if at all; ask them before any use beyond research"


@dataclass(frozen=True)
class HeldOut:
    """Images that the paper scores together.

    Attributes:
        name: In tables.
        csv: File that lists them, in the archive and in the folder made of it.
        images: Their number in the literature; None if it is not known.
    """

    name: str
    csv: str
    images: int | None = None


@dataclass(frozen=True, kw_only=True)
class PaperSet:
    """A set of the paper.

    Attributes:
        name: On the command line, and of its folder.
        title: For people.
        archive: Name of the released archive without .zip; None if it is not among them.
        tests: What is scored.
        binary: Whether the masks tell foreground from background; else they hold class ids.
        origin: Who made it, and where it is found.
        licence: What is known of it.
        citation: Of the set.
        splits: What the literature says of its parts.
        manual: How to get the archive if it must be fetched by hand.
    """

    name: str
    title: str
    archive: str | None
    tests: tuple[HeldOut, ...]
    binary: bool = True
    origin: str
    licence: str = _SHOWN_ON_REQUEST
    citation: str
    splits: str
    manual: str | None = None

    @property
    def url(self) -> str | None:
        """Address of the archive."""
        return f"{ARCHIVES}{self.archive}.zip" if self.archive else None


_ALL = (
    PaperSet(
        name="polyp",
        title="polyps in colonoscopy: Kvasir-SEG and CVC-ClinicDB (CVC-612)",
        archive="polyp",
        tests=(HeldOut("CVC-ClinicDB", "test_CVC-ClinicDB.csv", 62), HeldOut("Kvasir", "test_Kvasir.csv", 100)),
        origin="https://datasets.simula.no/kvasir-seg/ and https://polyp.grand-challenge.org/CVCClinicDB/",
        licence="Kvasir-SEG: for research and education only; CVC-ClinicDB: for research, with citation",
        citation="Jha et al., Kvasir-SEG, MMM 2020; Bernal et al., WM-DOVA maps, Comput. Med. Imaging Graph. 2015",
        splits="PraNet's: 900 images of Kvasir-SEG and 550 of CVC-ClinicDB to train and validate, 100 and 62 to test",
    ),
    PaperSet(
        name="isic2017",
        title="skin lesions: ISIC 2017, part 1",
        archive="isic2017",
        tests=(HeldOut("ISIC 2017", "test.csv", 600),),
        origin="https://challenge.isic-archive.com/data/#2017",
        licence="CC-0, as the challenge says",
        citation="Codella et al., Skin lesion analysis toward melanoma detection, ISBI 2018",
        splits="the challenge's: 2,000 train, 150 validation, 600 test",
    ),
    PaperSet(
        name="camo",
        title="camouflaged objects: CAMO",
        archive="camo_sem_seg",
        tests=(HeldOut("CAMO", "test_CAMO.csv", 250),),
        origin="https://sites.google.com/view/ltnghia/research/camo",
        citation="Le et al., Anabranch network for camouflaged object segmentation, CVIU 2019",
        splits="CAMO: 250 test; the literature trains on CAMO's 1,000, often with COD10K's 3,040 beside them",
    ),
    PaperSet(
        name="sbu-shadow",
        title="shadows: SBU",
        archive="SBU-shadow",
        tests=(HeldOut("SBU", "test.csv", 638),),
        origin="https://www3.cs.stonybrook.edu/~cvl/projects/shadow_noisy_label/",
        citation="Vicente et al., Large-scale training of shadow detectors with noisily-annotated examples, ECCV 2016",
        splits="about 4,089 train, 638 test",
    ),
    PaperSet(
        name="leaf",
        title="diseased spots of leaves",
        archive="leaf_disease_segmentation",
        tests=(HeldOut("Leaf", "test.csv"),),
        origin="https://www.kaggle.com/datasets/fakhrealam9537/leaf-disease-segmentation-dataset",
        citation="Leaf disease segmentation dataset, Kaggle",
        splits="588 images in all; the division is the archive's",
    ),
    PaperSet(
        name="road",
        title="roads in aerial images: Massachusetts Roads",
        archive="road_segmentation",
        tests=(HeldOut("Massachusetts Roads", "test.csv", 49),),
        origin="https://www.cs.toronto.edu/~vmnih/data/",
        citation="Mnih, Machine learning for aerial image labeling, PhD thesis, University of Toronto 2013",
        splits="1,108 train, 14 validation, 49 test",
    ),
    PaperSet(
        name="trans10k",
        title="transparent objects of 11 kinds: Trans10K-v2",
        archive=None,
        tests=(HeldOut("Trans10K-v2", "test.csv", 4428),),
        binary=False,
        origin="https://github.com/xieenze/Trans2Seg",
        licence="for non-commercial research, as its authors say",
        citation="Xie et al., Segmenting transparent objects in the wild with transformer, IJCAI 2021",
        splits="5,000 train, 1,000 validation, 4,428 test",
        manual="fetch Trans10K-v2 (Trans10K_cls12) from the place that https://github.com/xieenze/Trans2Seg names, so "
        "that a zip file holds the folders train, validation and test, each with images/NAME.jpg and "
        "masks_12/NAME_mask.png, and give it as --archive FILE",
    ),
)

SETS: dict[str, PaperSet] = {entry.name: entry for entry in _ALL}


def find_set(name: str) -> PaperSet:
    """The set of this name.

    Raises:
        SettingsError: There is none; the message suggests the nearest.
    """
    if name not in SETS:
        near = difflib.get_close_matches(name, SETS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise SettingsError(f"there is no set {name!r}: it must be one of {', '.join(SETS)}.{hint}")
    return SETS[name]
