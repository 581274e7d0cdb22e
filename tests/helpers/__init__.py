"""Shared by several tests: phantoms as files, fakes, servers, a browser."""
