"""Embeddings of slices kept on disk, within a limit of size."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import torch

from ..files import remove_temporaries, write_atomically
from ..networks.promptable import PromptSegmenter
from ..weights.checkpoint import READ_ERRORS

# Nobody writes an embedding for so long, so this temporary file is of a process that was killed.
OLD_S = 3600.0
BYTES_PER_GB = 10**9

_logger = logging.getLogger(__name__)


class EmbeddingCache:
    """Encode each slice once, also over several runs; what was not used for longest is deleted first.

    An embedding is found by the values of its slice and by the weights of the encoder, so other data or other weights
    never meet it. A file that cannot be read counts as absent.

    Args:
        folder: Folder of the embeddings; it should hold nothing else.
        max_gb: Size limit of the folder in GB (10^9 bytes); an embedding of ViT-B takes 0.004.

    Raises:
        ValueError: If `max_gb` is not above 0.

    Note:
        Several processes may share a folder; each keeps to the limit by what it saw when it last looked.
    """

    def __init__(self, folder: str | os.PathLike[str], max_gb: float = 10.0) -> None:
        if not max_gb > 0:
            raise ValueError(f"max_gb must be above 0, got {max_gb}. Leave the cache out to keep nothing.")
        self.folder = Path(folder)
        self.max_bytes = int(max_gb * BYTES_PER_GB)
        self._size_bytes: int | None = None

    def encode(self, network: PromptSegmenter, slices: torch.Tensor, fingerprint: str) -> torch.Tensor:
        """Return the embeddings of slices: from disk where they are there, the others in one batch by the network.

        Args:
            network: What encodes.
            slices: Shape (B, 1, H, W), in [0, 1].
            fingerprint: `network.encoder_fingerprint()`, taken after the last change of its weights.

        Returns:
            Embedding. Shape (B, C, h, w), float32, on the device of `slices`.
        """
        paths = [self._path(image, fingerprint) for image in slices]
        found = [self._read(path) for path in paths]
        missing = [index for index, embedding in enumerate(found) if embedding is None]
        if missing:
            encoded = network.encode(slices[missing]).detach()
            for index, embedding in zip(missing, encoded, strict=True):
                found[index] = embedding
                self._write(paths[index], embedding)
        # float32, as a run in half precision may meet embeddings of one in full
        return torch.stack([embedding.to(slices.device).float() for embedding in found if embedding is not None])

    def _path(self, image: torch.Tensor, fingerprint: str) -> Path:
        digest = hashlib.blake2b(f"{fingerprint} {tuple(image.shape)}".encode(), digest_size=16)
        digest.update(image.detach().float().cpu().contiguous().numpy().tobytes())
        return self.folder / f"{digest.hexdigest()}.pt"

    def _read(self, path: Path) -> torch.Tensor | None:
        try:
            embedding = torch.load(path, map_location="cpu", weights_only=True)
            os.utime(path)  # used just now
        except FileNotFoundError:
            return None
        except READ_ERRORS as error:
            _logger.warning("%s cannot be read and is made anew: %s", path, str(error).partition("\n")[0])
            return None
        return embedding if isinstance(embedding, torch.Tensor) else None

    def _write(self, path: Path, embedding: torch.Tensor) -> None:
        write_atomically(embedding.cpu().clone(), path)
        if self._size_bytes is not None:
            self._size_bytes += path.stat().st_size
        if self._size_bytes is None or self._size_bytes > self.max_bytes:
            self._shrink()

    def _shrink(self) -> None:
        """Measure the folder; delete the oldest files above the limit, and what killed processes have left."""
        remove_temporaries(self.folder, OLD_S)
        with os.scandir(self.folder) as entries:
            files = sorted(
                (entry.stat().st_mtime_ns, entry.stat().st_size, entry.path)
                for entry in entries
                if entry.name.endswith(".pt")
            )
        size_bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if size_bytes <= self.max_bytes:
                break
            Path(path).unlink(missing_ok=True)  # another process may have deleted it
            size_bytes -= size
        self._size_bytes = size_bytes
