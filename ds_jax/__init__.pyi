"""What type checkers see: `__init__.py` imports the same names when they are asked for."""

from ds_jax.features.axes import TimeFrequency as TimeFrequency
from ds_jax.features.axes import spectrogram as spectrogram
from ds_jax.features.spectrogram import PictureSettings as PictureSettings
from ds_jax.systems.deep_features import extract_features as extract_features
from ds_jax.systems.finding import load as load
from ds_jax.systems.model import Model as Model
from ds_jax.systems.model import explain as explain

__version__: str
