"""Autoencoders of latent models that users own: pictures on [-1, 1] as latents and back."""

from pathlib import Path

import torch

from operators.errors import ReadError
from operators.spec import DataRef
from restoration.architectures import Fit
from restoration.checkpoint_files import Contents, open_checkpoint
from restoration.checkpoints import fill, fits
from restoration.layouts import State
from restoration.nets.vq import VQ


class VQCodec(DataRef):
    """The file of an autoencoder with a codebook (VQ-GAN): `autoencoder_vq_f4.pth` of ResShift, LDM's `vq-f4`.

    The losses of its training, if they are in the file, are left out.
    """

    def plan(self, base: Path = Path()) -> VQ:
        """The network without its numbers, from names and shapes alone.

        Raises:
            AssetMissing: there is nothing at the path.
            ReadError: the file cannot be read, or is no such autoencoder.
        """
        path = self.resolve(base)
        net, _ = _fitted(open_checkpoint(path, self.path), path)
        return net

    def load(self) -> VQ:
        """Read the weights, frozen and in single precision; raises as `plan` does."""
        path = self.resolve(Path())
        contents = open_checkpoint(path, self.path)
        net, fit = _fitted(contents, path)
        fill(fit, contents, path)
        return net


def _fitted(contents: Contents, path: Path) -> tuple[VQ, Fit]:
    shapes = {name: tuple(t.shape) for name, t in _named(contents.tensors).items()}
    try:
        with torch.device("meta"):
            net = VQ(shapes)
    except (KeyError, ValueError, IndexError) as error:
        raise ReadError(
            f"Expected an autoencoder with a codebook at {path}, such as autoencoder_vq_f4.pth, got "
            f"{'no ' if isinstance(error, KeyError) else ''}{error}; give the file that the model was trained with."
        ) from error
    fit = Fit(net, _named)
    side = 2 * net.factor
    fits(fit, contents, path, torch.empty(1, net.image_channels, side, side, device="meta"))
    return net, fit


def _named(state: State) -> State:
    names = {name: name.removeprefix("_orig_mod.") for name in state}
    return {names[name]: tensor for name, tensor in state.items() if not names[name].startswith("loss.")}
