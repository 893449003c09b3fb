#!/usr/bin/env python3
"""A short run of soak.py: nothing is left behind. `make soak` runs 100,000 requests."""

from serve_support import Case, main
from soak import soak


class Soak(Case):
    def test_nothing_is_left_behind(self):
        figures, faults = soak(num_requests=1500, num_clients=8, seed=1)
        self.assertEqual(faults, [], figures)


if __name__ == "__main__":
    main()
