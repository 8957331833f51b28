"""Models in motion: aliases that are followed, a second model in the shadow of the first, a kill switch."""
