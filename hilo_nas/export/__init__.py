"""Exports of a chosen trial, one file per trainer or runtime; every export carries where its figures come from."""

from hilo_nas.export.choose import Promise, choose_trial, promises_of
from hilo_nas.export.timm import FORMATS, export_trial

__all__ = ["FORMATS", "Promise", "choose_trial", "export_trial", "promises_of"]
