"""The frozen test suites: which calls an agent is judged by, whoever speaks them."""
