"""The version of this package: that of gpumgr."""

__version__ = "0.1.0"
