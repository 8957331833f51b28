"""A second model that sees a share of the traffic in a process of its own, after the answer has gone."""
