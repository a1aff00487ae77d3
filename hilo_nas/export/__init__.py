"""Exports of a chosen trial, one file per trainer or runtime; every export carries where its figures come from."""

from hilo_nas.export.choose import choose_trial
from hilo_nas.export.timm import FORMATS, export_trial

__all__ = ["FORMATS", "choose_trial", "export_trial"]
