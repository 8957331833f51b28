"""Products of columns."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from fin_pyfunc.model.program.node import MAX_WIDTH, Array, Node, expect

#: Most blocks of products: as many columns' products with what they are multiplied by.
_MAX_BLOCKS = 100_000
#: Up to so many rows NumPy's calls take longer than what they do: one for each degree, not for each block.
_FEW = 16


class Polynomials(Node, tag="polynomials"):
    """Products of columns up to some degree (PolynomialFeatures).

    Parameters
    ----------
    blocks : ndarray of shape (n_blocks, 3), int64
        In order: columns of the result from the first number up to the second, each multiplied by the column of the
        input that is the third, follow next. Before all of them are the input's own columns.
    has_bias : bool
        Whether the first column is 1, which is before all else.
    first : int
        The products from here on are left, but for the bias.
    """

    blocks: np.ndarray
    has_bias: bool
    first: int

    def width(self, *widths: int) -> int:
        expect(len(widths) == 1 and self.blocks.dtype == np.int64 and self.blocks.ndim == 2, "polynomials")
        expect(self.blocks.shape[1] == 3 and len(self.blocks) <= _MAX_BLOCKS, "polynomials")
        made = widths[0]
        for start, end, by in self.blocks.tolist():
            expect(0 <= start <= end <= made and 0 <= by < widths[0], "polynomials")
            made += end - start
            expect(made <= MAX_WIDTH, "polynomials")
        expect(0 <= self.first <= made, "polynomials")
        return made - self.first + self.has_bias

    def __call__(self, *inputs: Array) -> Array:
        # PolynomialFeatures.transform of sklearn/preprocessing/_polynomial.py; the bias takes part in no product
        X = inputs[0]
        made = np.empty((len(X), 1 + X.shape[1] + self._n_products))
        made[:, 0] = 1.0
        of = made[:, 1:]
        of[:, : X.shape[1]] = X
        at = X.shape[1]
        if len(X) <= _FEW:
            for left, right in self._stages(at):
                to = at + len(left)
                of[:, at:to] = of[:, left] * X[:, right]
                at = to
        else:
            for start, end, by in self._blocks:
                to = at + end - start
                np.multiply(of[:, start:end], X[:, by : by + 1], out=of[:, at:to])
                at = to
        if not self.has_bias:
            return of[:, self.first :]
        return made if not self.first else np.concatenate((made[:, :1], of[:, self.first :]), axis=1)

    @cached_property
    def _blocks(self) -> list[list[int]]:
        return self.blocks.tolist()  # type: ignore[no-any-return]

    def _stages(self, n: int) -> list[tuple[Array, Array]]:
        """For each degree which columns of the result are multiplied by which of the n of the input."""
        stages: list[tuple[Array, Array]] | None = self.__dict__.get("_by_degree")
        if stages is None:
            stages, at = [], n
            left: list[int] = []
            right: list[int] = []
            for start, end, by in [*self._blocks, (at + self._n_products, 0, 0)]:
                if end > at or start > at:  # of products that this degree makes itself
                    stages.append((np.array(left, dtype=np.int64), np.array(right, dtype=np.int64)))
                    at, left, right = at + len(left), [], []
                left += range(start, end)
                right += [by] * (end - start)
            self.__dict__["_by_degree"] = stages
        return stages

    @cached_property
    def _n_products(self) -> int:
        return sum(end - start for start, end, _ in self._blocks)
