"""Signs in HDF5 files, one a signer: `<signer>.hdf5`, and `<signer>_swap.hdf5` with the same signs mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgelip.data.readers.listing import make_listing
from edgelip.data.readers.samples import Listing, Sample
from edgelip.data.signs.hdf5_landmarks import sign_tokens
from edgelip.data.signs.label_map import LABEL_MAP, read_label_map
from edgelip.data.signs.signers import signers_apart
from edgelip.data.unusable import UnusableClip
from edgelip.errors import UsageError
from edgelip.progress import Progress

ENDING, SWAPPED = ".hdf5", "_swap"


def read_signer_files(
    root: Path,
    *,
    words: Sequence[str] | None = None,
    label_map: Path | None = None,
    swapped: bool = False,
    val_signers: Sequence[str] | None = None,
    test_signers: Sequence[str] | None = None,
    val_share: float | None = None,
    test_share: float | None = None,
    progress: Progress | None = None,
) -> Listing:
    """Every group of every `<signer>.hdf5` in `root`; its token is read, its landmarks are not.

    label_map: JSON that gives each sign its token; `sign_to_prediction_index_map.json` in `root` if None.
    swapped: take the mirrored copies too, of signers to train on; training mirrors clips itself (train.flip).
    words, val_signers .. test_share: see edgelip.data.signs.gislr.read_gislr.
    Raises UsageError where there is no such file or no map, ClipError for a map that is broken.
    """
    root, progress = Path(root), progress or Progress(quiet=True)
    files = sorted(path for path in root.glob(f"*{ENDING}") if not path.name.startswith("."))
    if not files:
        raise UsageError(f"{root} has no <signer>{ENDING}; expected one file a signer. Check the folder.")
    label_map = root / LABEL_MAP if label_map is None else Path(label_map)
    if not label_map.is_file():
        raise UsageError(f"{label_map} does not exist; tokens are numbers, and it names them. Give it by --label-map.")
    signs = read_label_map(label_map)
    samples: list[Sample] = []
    unusable: dict[str, UnusableClip] = {}
    for path in files:
        if path.stem.endswith(SWAPPED) and not swapped:
            continue
        try:
            tokens = sign_tokens(path)
        except UnusableClip as error:
            unusable[path.name] = error
            continue
        for group, token in tokens.items():
            name = f"{path.name}/{group}"
            if isinstance(token, int) and not 0 <= token < len(signs):
                token = UnusableClip(
                    f"{path} group {group!r} has token {token}; {label_map} numbers signs 0 to {len(signs) - 1}.",
                    reason="annotation",
                )
            if isinstance(token, UnusableClip):
                unusable[name] = token
            else:
                signer = path.stem.removesuffix(SWAPPED)
                samples.append(Sample(signs[token], path, name, "train", speaker=signer, clip_id=group))
    placed, notes = signers_apart(
        samples, val_signers=val_signers, test_signers=test_signers, val_share=val_share, test_share=test_share
    )
    mirrored = [sample for sample in placed if sample.path.stem.endswith(SWAPPED) and sample.split != "train"]
    if mirrored:
        notes.append(f"{len(mirrored)} mirrored copies of held-out signers are left out")
    there = {sample.word for sample in placed}
    return make_listing(
        root,
        [sample for sample in placed if sample not in set(mirrored)],
        words=words if words is not None or not there else tuple(sign for sign in signs if sign in there),
        unusable=unusable,
        notes=notes,
    )
