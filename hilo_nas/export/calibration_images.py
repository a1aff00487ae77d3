"""Images for the calibration of a quantized network: those of the study, or of a source that the user names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilo_nas.errors import DataError
from hilo_nas.export.export_options import ExportOptions
from hilo_nas.export.source import NetworkSource
from hilo_nas.study.local_settings import load_local

if TYPE_CHECKING:
    from torch import Tensor  # importing torch is slow

__all__ = ["check_calibration_source", "read_calibration_images"]


def check_calibration_source(source: NetworkSource, options: ExportOptions, name: str) -> str | None:
    """Returns why a format lacks calibration images; None if the user or the study names a source."""
    where, why = _find_source(source, options)
    if where is not None:
        return None
    return f"format {name} needs images for its calibration{why}. Set --data to those of the training."


def _find_source(source: NetworkSource, options: ExportOptions) -> tuple[str | None, str]:
    """Returns the source of the images: `options.data`, or that of the study on this machine; or None and a reason."""
    if options.data is not None or source.folder is None:
        return options.data, ""
    local = load_local(source.folder.local_path)
    if "data.source" in local.functions:
        return (
            None,
            f", but the export runs no function of the study that you do not name: {local.values['data.source']}",
        )
    if local.fault is not None:
        return None, f", but local.yaml of study {source.folder.name} is not used: {local.fault}"
    return local.values.get("data.source"), ""


def read_calibration_images(source: NetworkSource, options: ExportOptions) -> tuple[Tensor, str]:
    """Returns calibration images and a note for the user.

    The images are preprocessed as for the exported network: shape (N, 3, S, S), normalized. Those of the study are not
    split as in its trainings, because the split needs the prepared images.

    Raises:
        DataError: The source does not exist, or no image can be used.
    """
    import numpy as np  # a list of formats must not load it
    import torch

    from hilo_nas.data.reading import ReadOptions
    from hilo_nas.data.sampled_images import sample_images
    from hilo_nas.models.convert.quantization import CALIBRATION_IMAGES

    (text, _), read = _find_source(source, options), source.preprocessing
    assert text is not None, "checked by the exporter"
    reading = {} if source.manifest is None else source.manifest.data.reading
    try:
        images = sample_images(
            text,
            CALIBRATION_IMAGES,
            img_size=read.img_size,
            resize=int(read.img_size / read.crop_pct),
            options=ReadOptions.from_dict(dict(reading)),
        )
    except DataError as error:
        if options.data is not None:
            raise
        raise DataError(f"{error} Or set --data to other images for the calibration.") from error
    pixels = np.stack(images).astype(np.float32) / 255
    normal = (pixels - np.asarray(read.mean, np.float32)) / np.asarray(read.std, np.float32)
    tensor = torch.from_numpy(normal.transpose(0, 3, 1, 2).copy())
    note = f"quantized to INT8 with {len(images)} calibration images of {text}"
    return tensor, note if options.data is not None else f"{note}, which may include images held out by the study"
