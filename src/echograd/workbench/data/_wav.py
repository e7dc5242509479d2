"""Reader of uncompressed .wav files."""

import pathlib
import wave

import numpy as np

from . import _reading
from ._errors import DataError


def read_wav(path: pathlib.Path) -> tuple[np.ndarray, float]:
    """Return the samples of a .wav file, from -1 to 1 and of shape (steps, channels), and the sample rate in Hz.

    Raises:
        OSError: the file cannot be read.
        DataError: it is not an uncompressed .wav file with integers of 8 to 32 bits, or it is truncated.
    """
    with _reading.open_file(path) as file:
        try:
            with wave.open(file, "rb") as sound:
                channels, width, rate, frames = sound.getparams()[:4]
                content = sound.readframes(frames)
        except (wave.Error, EOFError) as error:
            raise DataError(
                f"{path} is not an uncompressed .wav file: {error or 'it is truncated'}. Convert it to 16-bit PCM."
            ) from error
    if not content or len(content) != frames * channels * width:
        raise DataError(f"{path} is truncated: {len(content)} bytes for {frames} frames. Copy or download it again.")
    if width == 1:  # unsigned
        samples = (np.frombuffer(content, np.uint8).astype(np.float64) - 128) / 128
    elif width == 3:
        wide = np.zeros((len(content) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        samples = wide.view("<i4")[:, 0] / 2.0**31
    else:
        samples = np.frombuffer(content, f"<i{width}") / 2.0 ** (8 * width - 1)
    return samples.reshape(-1, channels), float(rate)
