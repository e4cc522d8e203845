"""What the script of a lens's page draws the map from: names as JSON, numbers packed."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from modelassay.report.lens_parts import MEANINGS, LensMap, shades_of, values_of
from modelassay.report.pack import Pack


def lens_payload(part: LensMap, pack: Pack) -> dict[str, Any]:
    """One text through several lenses, with every token's text told once."""
    first = part.readings[0]
    used = sorted({token for reading in part.readings for token in reading.top_texts})
    place = {token: index for index, token in enumerate(used)}
    texts = {t: text for reading in part.readings for t, text in reading.top_texts.items()}
    shades = {meaning.key: shades_of(part.readings, meaning.key) for meaning in MEANINGS}
    return {
        "depths": list(first.depths),
        "tokens": [place[token] for token in first.tokens.tolist()],
        "texts": [texts[token] for token in used],
        "count": first.top.shape[2],
        "measures": [
            {
                "key": meaning.key,
                "title": meaning.title,
                "unit": meaning.unit,
                "explains": meaning.explains,
                "good": meaning.good,
                "full": shades[meaning.key][1],
            }
            for meaning in MEANINGS
        ],
        "lenses": [
            {
                "name": reading.lens,
                "top": pack.counts(_places(reading.top, place)),
                "p": pack.exact(reading.top_probabilities.numpy()),
                "values": {
                    meaning.key: pack.exact(values_of(reading, meaning.key).numpy())
                    for meaning in MEANINGS
                },
                "shades": {
                    meaning.key: pack.counts(_bytes(shades[meaning.key][0][index]))
                    for meaning in MEANINGS
                },
            }
            for index, reading in enumerate(part.readings)
        ],
    }


def _places(tokens: Tensor, place: dict[int, int]) -> np.ndarray:
    flat = [place[token] for token in tokens.flatten().tolist()]
    return np.array(flat, dtype=np.int64).reshape(tuple(tokens.shape))


def _bytes(shades: Tensor) -> np.ndarray:
    return (shades * 255).round().to(torch.int64).numpy()
