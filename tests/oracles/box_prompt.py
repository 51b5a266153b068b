"""From boxes to a label map, voxel by voxel and box by box, as the text of MedLSAM says it."""

import numpy as np
import torch
import torch.nn.functional as F


def segment_scan(volume, network, boxes, margin_px):
    """Label map of a scan (D, H, W): every organ and part on its own, each with its own encoding of each slice."""
    depth, height, width = volume.shape
    best = np.zeros(volume.shape)
    label_map = np.zeros(volume.shape, np.uint8)
    encodings = 0
    for organ in boxes.organs:
        if not organ.present:
            continue
        for part in organ.parts:
            for z in range(max(0, part.lower[0]), min(depth, part.upper[0])):
                with torch.no_grad():
                    embedding = network.encode(volume[z][None, None])
                    encodings += 1
                    size = network.image_size
                    margin = margin_px * size / 1024
                    box = [
                        max(0.0, max(part.lower[2], 0) * size / width - margin),
                        max(0.0, max(part.lower[1], 0) * size / height - margin),
                        min(float(size), min(part.upper[2], width) * size / width + margin),
                        min(float(size), min(part.upper[1], height) * size / height + margin),
                    ]
                    logits = network.decode(embedding, torch.tensor([box]))
                resized = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False, antialias=True)
                probability = torch.sigmoid(resized)[0, 0].double().numpy()
                for y in range(height):
                    for x in range(width):
                        if probability[y, x] > 0.5 and probability[y, x] > best[z, y, x]:
                            best[z, y, x] = probability[y, x]
                            label_map[z, y, x] = organ.label
    return label_map, encodings
