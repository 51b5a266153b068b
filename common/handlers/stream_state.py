"""Where a stream of images was, so that a killed run goes on at the next one: `stream_state.pt`."""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..files import write_atomically

STREAM_FILE = "stream_state.pt"

_logger = logging.getLogger(__name__)


class StreamState:
    """The state of an adaptation after each image, together with which images it has seen, in their order.

    The images are kept as the hash of a chain of their fingerprints, so the file does not grow with the stream.

    Args:
        output_dir: Folder of `stream_state.pt`.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.path = Path(output_dir) / STREAM_FILE
        self.restart()

    def restart(self) -> None:
        """Begin a new stream; the file of the former stays until the first image is done."""
        self.num_seen = 0
        self.chain = ""
        self.adaptation: dict[str, Any] | None = None

    def read(self, fingerprints: Sequence[str]) -> bool:
        """Take up the stream of a former run if the images that it saw are the first of this one.

        Args:
            fingerprints: Of all images, in order.

        Returns:
            Whether there is something to go on with. If not, the stream begins anew.
        """
        self.restart()
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return False
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            _logger.warning("%s cannot be read, so the stream begins anew: %s", self.path, reason)
            return False
        num_seen = content["num_seen"]
        if num_seen > len(fingerprints) or chain_of(fingerprints[:num_seen]) != content["chain"]:
            return False
        self.num_seen, self.chain, self.adaptation = num_seen, content["chain"], content["adaptation"]
        return True

    def write(self, fingerprint: str, adaptation: dict[str, Any]) -> None:
        """Note that an image was seen.

        Args:
            fingerprint: Of the image.
            adaptation: State of the inferer behind it.

        Raises:
            OSError: If it cannot be written.
        """
        self.num_seen += 1
        self.chain = _link(self.chain, fingerprint)
        write_atomically({"num_seen": self.num_seen, "chain": self.chain, "adaptation": adaptation}, self.path)


def chain_of(fingerprints: Sequence[str]) -> str:
    """Return one number for images in their order.

    Args:
        fingerprints: One for each image.
    """
    chain = ""
    for fingerprint in fingerprints:
        chain = _link(chain, fingerprint)
    return chain


def _link(chain: str, fingerprint: str) -> str:
    return hashlib.sha256(f"{chain} {fingerprint}".encode()).hexdigest()
