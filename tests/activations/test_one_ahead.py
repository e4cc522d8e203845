import threading
from collections.abc import Iterator

import torch

from modelassay.activations.stream import _one_ahead


def test_a_stream_that_is_left_half_read_is_closed_without_waiting_for_its_thread() -> None:
    go_on = threading.Event()

    def items() -> Iterator[torch.Tensor]:
        yield torch.zeros(1)
        go_on.wait()
        yield torch.ones(1)

    stream = _one_ahead(items())
    assert next(stream).item() == 0
    closing = threading.Thread(target=stream.close, daemon=True)
    closing.start()
    closing.join(timeout=30)
    waited = closing.is_alive()
    go_on.set()
    assert not waited
