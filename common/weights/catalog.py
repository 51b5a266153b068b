"""Which checkpoints are published for the methods of the bundles: where, under which terms, and what they need.

What is not known is called unknown; no address is written down that was not seen in the authors' repository or ours.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["CATALOG", "PublishedCheckpoint", "describe_catalog"]

BY_HAND = "linked from {}; download it by hand, nothing here fetches it"
LINE_WIDTH = 116


class PublishedCheckpoint(NamedTuple):
    """A checkpoint that others publish.

    Attributes:
        files: Names under which it is published.
        bundle: Bundle that uses it.
        origin: Where it comes from.
        license: What its owners state, and where they state nothing.
        needs: What has to be installed or set to use it.
        converter: Value of `--name` of `convert`; empty where the file is used as it is, or cannot be used.
        remark: What else to know.
    """

    files: str
    bundle: str
    origin: str
    license: str
    needs: str
    converter: str
    remark: str


NOT_SEEN = "the converter was tested on the published list of tensors, never on the file"
CATALOG = (
    PublishedCheckpoint(
        "pctnet_ct10k_volf.pt",
        "volume_fusion",
        BY_HAND.format("the repository openmedlab/MIS-FM"),
        "the repository is under Apache-2.0 (its first README said CC-BY-NC-4.0); none is stated for the weights",
        "finetune.json without small.json; PCTNet of the default sizes, resolution_mode 1",
        "pctnet",
        NOT_SEEN,
    ),
    PublishedCheckpoint(
        "fmunet_abk1k_volf.pt (fmunet_abd1k_volf.pt in a configuration of the authors)",
        "volume_fusion",
        BY_HAND.format("the repository openmedlab/MIS-FM"),
        "the repository is under Apache-2.0 (its first README said CC-BY-NC-4.0); none is stated for the weights",
        "the overlay fmunet.json; resolution_mode 0",
        "fmunet",
        NOT_SEEN,
    ),
    PublishedCheckpoint(
        "medlam.pth",
        "medlsam",
        BY_HAND.format("the authors' repository MedLSAM"),
        "contradictory: the licence file is Apache-2.0, the README says CC-BY-NC-4.0; take it for non-commercial",
        "localize.json without small.json",
        "medlam",
        NOT_SEEN,
    ),
    PublishedCheckpoint(
        "sam_vit_b_01ec64.pth, and those of ViT-L and ViT-H",
        "medlsam",
        "the repository segment-anything; download it by hand, nothing here fetches it",
        "Apache-2.0",
        "the extra `sam` (transformers); --sam_path FILE --preprocess sam",
        "",
        "read as it is; `convert --name sam` writes our layout",
    ),
    PublishedCheckpoint(
        "medsam_vit_b.pth, or a folder of Hugging Face with model.safetensors",
        "medlsam",
        "the authors' repository MedSAM; download it by hand, nothing here fetches it",
        "Apache-2.0",
        "the extra `sam` (transformers); --sam_path FILE --preprocess medsam",
        "",
        "read as it is; the release of April 2023 was trained with --preprocess sam",
    ),
    PublishedCheckpoint(
        "models/<source set>/last-Res_Unet.pth of VPTTA",
        "vptta",
        BY_HAND.format("the repository Chen-Ziyang/VPTTA"),
        "the repository is under MIT; none is stated for the weights",
        "inference.json without small.json; photographs cropped around the disc",
        "vptta",
        NOT_SEEN,
    ),
    PublishedCheckpoint(
        "models/<source set>/last-Res_Unet.pth of GraTa",
        "grata",
        BY_HAND.format("the repository Chen-Ziyang/GraTa"),
        "the repository is under MIT; none is stated for the weights",
        "inference.json without small.json; photographs cropped around the disc",
        "grata",
        NOT_SEEN,
    ),
    PublishedCheckpoint(
        "models/<source set>/pretrain-PraNet.pth (polyps)",
        "vptta, grata",
        BY_HAND.format("the repositories Chen-Ziyang/VPTTA and Chen-Ziyang/GraTa"),
        "the repositories are under MIT; none is stated for the weights",
        "a network (PraNet) that is not part of this project",
        "",
        "cannot be used here",
    ),
    PublishedCheckpoint(
        "resnet34-333f7ec4.pth (ImageNet)",
        "vptta, grata",
        "the model zoo of PyTorch; download it by hand, nothing here fetches it",
        "unknown to us",
        "train.json with --use_imagenet True --imagenet_path FILE",
        "",
        "read as it is",
    ),
    PublishedCheckpoint(
        "none", "maco", "no checkpoint is published, as far as we know", "-", "-", "", "train your own"
    ),
)


def describe_catalog() -> Iterator[str]:
    """Yield the catalog as lines for a terminal."""
    for entry in CATALOG:
        yield f"{entry.bundle}: {entry.files}"
        how = f"python -m {__package__} convert --name {entry.converter} --source FILE --output FILE"
        rows = {
            "from": entry.origin,
            "licence": entry.license,
            "needs": entry.needs,
            "convert": how if entry.converter else f"no conversion: {entry.remark}",
            "tested": entry.remark if entry.converter else "",
        }
        for name, text in rows.items():
            if text and text != "-":
                yield from textwrap.wrap(
                    text, LINE_WIDTH, initial_indent=f"    {name:9}", subsequent_indent=" " * 13, break_on_hyphens=False
                )
