"""What every refusal of the product has to be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from asr.errors import UserError


@contextmanager
def refused(kind: type[UserError], match: str) -> Iterator[None]:
    """The block raises exactly this kind of error, in one line that holds the pattern."""
    with pytest.raises(kind, match=match) as caught:
        yield
    assert caught.type is kind
    assert len(str(caught.value).splitlines()) == 1
