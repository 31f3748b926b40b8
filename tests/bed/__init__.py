"""The test bed: what the tests and the demo run for real, and how it is started and ended."""
