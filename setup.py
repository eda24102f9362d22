"""Entry point for tools that need a setup script; everything is declared in pyproject.toml."""

from setuptools import setup

setup()
