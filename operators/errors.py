"""Errors a user can act on. Each message says what was expected, what came and what to do."""


class PreimageError(Exception):
    """Base of every error whose message is meant for the user; anything else is a defect of the program."""


class RecipeError(PreimageError):
    """A recipe, or a part of one, cannot be carried out as written."""


class ShapeError(PreimageError):
    """A tensor or a picture has the wrong shape, or the wrong kind of numbers."""


class NeedError(PreimageError):
    """A method asks for something the operator, the noise or the model does not offer."""


class AssetMissing(PreimageError):
    """A named asset is not on this machine."""


class AssetCorrupt(PreimageError):
    """A file does not have the checksum it should have."""


class ReadError(PreimageError):
    """A file cannot be read or does not hold what it should."""


class WriteError(PreimageError):
    """A file cannot be written."""


class Diverged(PreimageError):
    """A run produced numbers that are not finite.

    Args:
        step: outer iteration at which it was seen, counted from 1.
        what: the quantity that is no longer finite.
    """

    def __init__(self, step: int, what: str) -> None:
        super().__init__(step, what)
        self.step = step
        self.what = what

    def __str__(self) -> str:
        return (
            f"Expected finite numbers, got NaN or infinity in {self.what} at step {self.step}; "
            "use a smaller step size or a larger noise level."
        )


class NoConvergence(PreimageError):
    """An iterative solver asked to be strict stopped before reaching its tolerance."""
