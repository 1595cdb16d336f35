"""Frozen, named protocols: which heads train and which test, each with an id, a version and two hashes.

A protocol is data: two splits, each a few conditions on the columns of a manifest. The definition hash covers all
that decides which heads are chosen, and nothing that only explains. A changed definition gets a new version, or
better a new id. What a definition gives on somebody's manifest has a hash of its own: see `protocols`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from ubhpd.core.errors import UbhpdError, shortened

POOL, UBHPD = "pool", "ubhpd"  # the manifests of a build's folder
TRAIN, TEST, ALL = "train", "test", "all"
MAX_ANGLE_DEG = 99.0  # on each of yaw, pitch and roll, inclusive, for every --max-angle of the build

_DECIDING = ("id", "version", "train", "test", "divide")


@dataclass(frozen=True)
class Where:
    """A condition on a text column: `how` is a key of rules.CONDITIONS."""

    column: str
    how: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.column} {self.how} {', '.join(self.values)}"


@dataclass(frozen=True)
class SplitDefinition:
    """Which heads of a manifest make one split: those with a pose that meet every condition.

    table: "pool" or "ubhpd". max_angle_deg: no larger yaw, pitch or roll; None takes also what the build refused as
    beyond_max_angle. listed: only frames of a list that the user supplies. apart: columns; a head that shares a
    value of one with the other split is left out.
    """

    where: tuple[Where, ...]
    table: str = POOL
    max_angle_deg: float | None = None
    listed: bool = False
    apart: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [f"heads of {self.table}.parquet with {' and '.join(map(str, self.where))}"]
        if self.max_angle_deg is not None:
            words.append(f"|angle| <= {self.max_angle_deg:g} degrees")
        if self.listed:
            words.append("only the frames of a list")
        if self.apart:
            words.append(f"none that shares {' or '.join(self.apart)} with the other split")
        return "; ".join(words)


@dataclass(frozen=True)
class Divide:
    """Both splits are one set of heads, divided. form: a key of rules.DIVISIONS. share: of train."""

    form: str
    share: float


@dataclass(frozen=True)
class Published:
    """How many heads a split is known to have and, where the names are known, the SHA-256 of their sorted list."""

    heads: int
    ids_hash: str | None = None


@dataclass(frozen=True)
class Protocol:
    """A frozen definition.

    series: the number that the papers give it, "1", "2", "3" or "cross". published: by split, or "all".
    """

    id: str
    version: int
    series: str
    sentence: str
    paper: str
    train: SplitDefinition
    test: SplitDefinition
    divide: Divide | None = None
    published: Mapping[str, Published] = field(default_factory=dict, hash=False)
    note: str = ""

    @property
    def definition(self) -> dict[str, Any]:
        """What decides which heads are chosen, as JSON can hold it."""
        content = asdict(self)
        return {key: content[key] for key in _DECIDING}

    @property
    def definition_hash(self) -> str:
        """SHA-256 of the definition as JSON with sorted keys and without spaces."""
        text = json.dumps(self.definition, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def needs_frames(self) -> bool:
        """Whether the user has to supply a frame list."""
        return self.train.listed or self.test.listed

    @property
    def tables(self) -> tuple[str, ...]:
        """The manifests it is read from."""
        return tuple(dict.fromkeys((self.train.table, self.test.table)))

    def as_dict(self) -> dict[str, Any]:
        """Return everything, the hash of the definition included, as JSON can hold it."""
        return {**asdict(self), "definition_hash": self.definition_hash}


def protocol(protocol_id: str) -> Protocol:
    """Return the protocol of this id; upper and lower case do not count.

    Raises:
        UbhpdError: there is none; the sentence suggests the nearest.
    """
    lower = protocol_id.lower()
    if lower in PROTOCOLS:
        return PROTOCOLS[lower]
    near = difflib.get_close_matches(lower, PROTOCOLS, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "ubhpd protocols lists them."
    raise UbhpdError(f"There is no protocol {shortened(protocol_id)}: {hint}")


def protocols_named(name: str) -> tuple[Protocol, ...]:
    """Return the protocol of an id, or those of a short name, as "1"; errors as `protocol`."""
    ids = SHORT_NAMES.get(name.lower())
    return (protocol(name),) if ids is None else tuple(PROTOCOLS[i] for i in ids)


def training_protocol(name: str) -> Protocol:
    """Return the protocol whose training split an id or a short name means.

    Raises:
        UbhpdError: there is none, or the protocols of the short name train on different heads.
    """
    found = protocols_named(name)
    if any((p.train, p.divide) != (found[0].train, found[0].divide) for p in found):
        ids = ", ".join(p.id for p in found)
        raise UbhpdError(f"The protocols of {name!r} train on different heads: choose one of {ids}.")
    return found[0]


def in_series(series: str) -> tuple[Protocol, ...]:
    """Return the protocols that papers call "1", "2" or "3", or those of "cross".

    Raises:
        UbhpdError: there is no such series.
    """
    found = tuple(p for p in PROTOCOLS.values() if p.series == series)
    if not found:
        known = ", ".join(dict.fromkeys(p.series for p in PROTOCOLS.values()))
        raise UbhpdError(f"There is no series of protocols {series!r}: choose from {known}.")
    return found


def _dataset(name: str) -> Where:
    return Where("dataset", "is", (name,))


def _literature(target: str, heads: int, **rest: Any) -> Protocol:
    test = rest.pop("test", SplitDefinition((_dataset(target),), max_angle_deg=MAX_ANGLE_DEG))
    hashed = rest.pop("ids_hash", None)
    return Protocol(
        id=f"300wlp_{target}_{heads}", version=1, series="1", test=test,
        train=SplitDefinition((_dataset("300wlp"),), max_angle_deg=MAX_ANGLE_DEG),
        published={TRAIN: Published(122_415), TEST: Published(heads, hashed)}, **rest,
    )  # fmt: skip


def _biwi(id: str, divide: Divide, sentence: str, note: str) -> Protocol:
    side = SplitDefinition((_dataset("biwi"),))
    return Protocol(
        id=id, version=1, series="2", sentence=sentence, paper=_FSANET + ", protocol 2", train=side, test=side,
        divide=divide, published={ALL: Published(15_678, _BIWI_HASH)},
        note="The 70/30 list of the papers never existed in public: FSA-Net drew 16 of the 24 recordings with an "
        "unseeded generator and kept no names, Hopenet's three splits are unpublished. Compare results of equal id and "
        f"hash only. {note}",
    )  # fmt: skip


def _upna(id: str, train: int, paper: str, note: str) -> Protocol:
    """Return UPNA divided by person: the first `train` of its ten users train."""

    def users(first: int, last: int) -> SplitDefinition:
        names = tuple(f"upna/user_{u:02d}" for u in range(first, last + 1))
        return SplitDefinition((_dataset("upna"), Where("subject_id", "is", names)))

    return Protocol(
        id=id, version=1, series="2", paper=paper, train=users(1, train), test=users(train + 1, 10),
        sentence=f"UPNA by person: users 01 to {train:02d} train, {train + 1:02d} to 10 test.",
        published={TRAIN: Published(3_600 * train), TEST: Published(3_600 * (10 - train))},
        note=f"{note} The numbers are 12 videos of 300 frames per user, as the literature has it. The labels, raw or "
        "zeroed, are an option of the build: name it beside a result.",
    )  # fmt: skip


def _cross(target: str, published: Published | None = None, also: tuple[Where, ...] = (), note: str = "") -> Protocol:
    return Protocol(
        id=f"ubhpd_cross_{target}", version=1, series="cross", paper=_OSGG,
        sentence=f"Trains on UBHPD without {target}, tests on all of {target}: a dataset never seen.",
        train=SplitDefinition(
            (Where("dataset", "is not", (target,)), *also), UBHPD, apart=("subject_id", "source_photo")
        ),
        test=SplitDefinition((_dataset(target),), max_angle_deg=MAX_ANGLE_DEG),
        published={TEST: published} if published else {}, note=note,
    )  # fmt: skip


_HOPENET = "N. Ruiz, E. Chong, J. M. Rehg: Fine-Grained Head Pose Estimation Without Keypoints. CVPR Workshops 2018"
_FSANET = "T.-Y. Yang, Y.-T. Chen, Y.-Y. Lin, Y.-Y. Chuang: FSA-Net. CVPR 2019"
_OSGG = (
    "S. Mo, X. Miao: OsGG-Net: One-step Graph Generation Network for Unbiased Head Pose Estimation. ACM Multimedia 2021"
)
_ONE_BEST = "Of so few groups one division is the best, so that seeds usually agree."
_BIWI_HASH = "9f9dc93a2162d7e38e7865c3ac71e04fcfa6fec209f4a8f68ab08385710284dd"
_AFLW2000_HASH = "49fa9950d1eceaaeccd6fb5a690102dcc88a6ecbf1a6124d50e51e268e58f785"

_ALL: tuple[Protocol, ...] = (
    _literature(
        "aflw2000",
        1_969,
        sentence="The usual test: 300W-LP to AFLW2000 without the 31 images beyond 99 degrees.",
        paper=_HOPENET,
        ids_hash=_AFLW2000_HASH,
    ),
    _literature(
        "aflw2000",
        2_000,
        sentence="300W-LP to all of AFLW2000, the 31 images beyond 99 degrees included.",
        paper="X. Zhu, Z. Lei, X. Liu, H. Shi, S. Z. Li: Face Alignment Across Large Poses. CVPR 2016 (its test set)",
        test=SplitDefinition((_dataset("aflw2000"),)),
        ids_hash="f98b280a5649fa71088ec208b65050178c10ad83b2251de40e67eda9dfcb67b3",
        note="Some of the 31 labels are absurd (893 degrees) and weigh heavily in a mean error.",
    ),
    _literature(
        "biwi",
        15_678,
        sentence="300W-LP to all 15,678 frames of BIWI.",
        paper=_HOPENET,
        ids_hash=_BIWI_HASH,
        note="No frame of BIWI is beyond 99 degrees. Hopenet's own detector lost 11 or 12 frames.",
    ),
    _literature(
        "biwi",
        13_219,
        sentence="300W-LP to the 13,219 frames of BIWI that FSA-Net's face detector kept, from a list you supply.",
        paper=_FSANET + ", protocol 1",
        test=SplitDefinition((_dataset("biwi"),), max_angle_deg=MAX_ANGLE_DEG, listed=True),
        note="Detecting again gives other frames: only a list reproduces them. No list is shipped; several public "
        "repositories have one.",
    ),
    _biwi(
        "biwi_70_30_frames",
        Divide("random", 0.7),
        "BIWI divided 70/30 by frames, evenly over the bins, by seed.",
        "Neighbouring frames are in both splits.",
    ),
    _biwi(
        "biwi_70_30_sequences",
        Divide("sequence", 0.7),
        "BIWI divided 70/30 by recordings so that both splits have the most similar angles.",
        f"Four people are in two recordings, so a person can be in both splits. {_ONE_BEST}",
    ),
    _biwi(
        "biwi_70_30_subjects",
        Divide("subject", 0.7),
        "BIWI divided 70/30 by persons so that both splits have the most similar angles.",
        f"Nobody is in both splits. {_ONE_BEST}",
    ),
    _biwi(
        "biwi_16_8_drawn",
        Divide("drawn recordings", 16 / 24),
        "BIWI with 16 of its 24 recordings drawn by seed to train, 8 to test, as FSA-Net drew them.",
        "Four people are in two recordings, so a person can be in both splits.",
    ),
    Protocol(
        id="biwi_leave_out_01_10_23",
        version=1,
        series="2",
        sentence="BIWI, tested on recordings 01, 10 and 23, trained on the other 21: the one public list.",
        paper="H. Wang, Z. Chen, Y. Zhou: Hybrid coarse-fine classification for head pose estimation. arXiv 2019 "
        "(repository accurate-head-pose)",
        train=SplitDefinition((_dataset("biwi"), Where("sequence_id", "is not", ("biwi/01", "biwi/10", "biwi/23")))),
        test=SplitDefinition((_dataset("biwi"), Where("sequence_id", "is", ("biwi/01", "biwi/10", "biwi/23")))),
        published={
            TRAIN: Published(13_884, "2b2d9d4332caf69977449fd760c55a45bf1924aabc49c18b1d12959ba72842c9"),
            TEST: Published(1_794, "046e06260c16e38133177f99498c17394626c9481c0ece42406b969e761a563c"),
        },
        note="No person is in both splits. The authors' own training list lacks 40 frames of recordings 18 and 21.",
    ),
    _upna(
        "upna_7_3",
        7,
        _OSGG + ", protocol 2",
        "The paper prints 7 subjects for training and 3 for testing in section 5.2, and once, in 5.1, 7 and 4 of 10. "
        "It does not say which; here they are in the order of their numbers.",
    ),
    _upna(
        "upna_subjects",
        6,
        "D. Mohlin, G. Bianchi, J. Sullivan: Probabilistic Orientation Estimation with Matrix Fisher "
        "Distributions. NeurIPS 2020; I. Gilitschenski et al.: Deep Orientation Uncertainty Learning based on a "
        "Bingham Loss. ICLR 2020",
        "Mohlin et al. keep every 20th frame.",
    ),
    Protocol(
        id="aflw_21080_1000",
        version=1,
        series="2",
        sentence="AFLW with 1,000 heads drawn by seed to test and 21,080 of other photographs to train.",
        paper=_HOPENET + ", table 4",
        train=SplitDefinition((_dataset("aflw"),), max_angle_deg=MAX_ANGLE_DEG),
        test=SplitDefinition((_dataset("aflw"),), max_angle_deg=MAX_ANGLE_DEG),
        divide=Divide("drawn heads", 21_080 / 22_080),
        published={TRAIN: Published(21_080), TEST: Published(1_000)},
        note="The paper names neither numbers nor heads of its test set. The literature quotes 21,080 and 1,000, "
        "without saying which of AFLW's 24,384 heads these are: a seed draws them. "
        "Compare results of equal id and hash only. A build with fewer heads is divided in the same proportion.",
    ),
    Protocol(
        id="ubhpd",
        version=1,
        series="3",
        sentence="UBHPD as it was built: the column split of ubhpd.parquet.",
        paper=_OSGG,
        train=SplitDefinition((Where("split", "is", (TRAIN,)),), UBHPD),
        test=SplitDefinition((Where("split", "is", (TEST,)),), UBHPD),
        note="Which heads these are depends on sources, size, target, seed and split of the build: compare the hash of "
        "the resolution.",
    ),
    _cross("300wlp", Published(122_415)),
    _cross("aflw"),
    _cross(
        "aflw2000",
        Published(1_969, _AFLW2000_HASH),
        note="Heads of AFLW on the same photographs are left out of train.",
    ),
    _cross(
        "biwi",
        Published(15_678, _BIWI_HASH),
        (Where("sample_id", "does not start with", ("synhead/BIWI/",)),),
        "SynHead's tracks that replay BIWI are left out of train. The paper samples UBHPD without its target (section "
        "5.1): so does a build with --exclude biwi.",
    ),
    _cross("synhead"),
    _cross("upna", Published(36_000)),
)
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({p.id: p for p in _ALL})

# What papers call by these numbers, one id for each pair of train and test set. Of the divisions of BIWI it is the
# one that is drawn as FSA-Net drew it, of those of UPNA OsGG-Net's; the others are there by their ids.
SHORT_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "1": ("300wlp_aflw2000_1969", "300wlp_biwi_15678"),
        "2": ("biwi_16_8_drawn", "upna_7_3"),
        "3": ("ubhpd",),
        "cross": tuple(p.id for p in in_series("cross")),
    }
)
