import pytest

# what these assert is told in full when it fails, as in a test file
pytest.register_assert_rewrite(
    "tests.authoring.checks", "tests.cli.commands", "tests.configs", "tests.feature_rows", "tests.resolving"
)
