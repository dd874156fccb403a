"""Whole sets of images to codes and back, batch by batch.

Shape legend: N images, B of a batch, H and W pixels, h and w codes, D width of a code vector.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from kyvo.common.devices import resolve_precision
from kyvo.common.errors import InputError
from kyvo.images.preprocessing import to_model_range, to_uint8
from kyvo.images.vqgan import VQGAN

CodecPrecision = Literal["auto", "fp32", "bf16"]


class ImageCodec:
    """A VQGAN made ready for many images.

    Only uint8 images and codes travel between host and device, and a batch travels back while
    the next one is computed.

    Args:
        model: left as it is.
        device: where to compute.
        batch_size: images at a time.
        precision: of the convolutions; bf16 is faster on devices that multiply such numbers, and
            a few codes in a hundred differ; auto: bf16 on those devices, else fp32. The nearest
            code is always found in float32.
        compiled: compile both directions; pays for thousands of images.

    Raises:
        InputError: ``batch_size`` is less than 1.
    """

    def __init__(
        self,
        model: VQGAN,
        device: torch.device | str = "cpu",
        batch_size: int = 32,
        precision: CodecPrecision = "fp32",
        compiled: bool = False,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size: expected 1 or more, found {batch_size}.")
        self.config = model.config
        self.device = torch.device(device)
        self.batch_size = batch_size
        precision = resolve_precision(precision, self.device, "bf16", "fp32")
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._model = _ready(model, self.device, self._dtype)
        self._pads = compiled
        compile_ = torch.compile if compiled else _unchanged
        self._encode_batch = compile_(self._codes)
        self._decode_batch = compile_(self._images)

    @property
    def codebook(self) -> np.ndarray:
        """The code vectors, float32 (n_embed, D) whatever the precision of the rest."""
        return self._model.codebook.detach().cpu().numpy()

    def encode(self, images_NHWC: np.ndarray, progress: bool = False) -> np.ndarray:
        """Codes (N, h, w) int64 of uint8 images (N, H, W, 3); ``progress`` shows a bar.

        Raises:
            InputError: the images are not uint8 (N, H, W, 3) with sides that the model can take.
        """
        _check_images(images_NHWC, self.config.downsampling_factor)
        return self._run(self._encode_batch, images_NHWC, "encoding", progress)

    def encode_batches(self, batches_BHWC: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Codes (B, h, w) of each batch of at most ``batch_size`` images, see ``encode``.

        A batch may change as soon as the next one is asked for: its images were taken.
        """
        return self._stream(self._encode_batch, map(self._checked, batches_BHWC))

    def _checked(self, images_BHWC: np.ndarray) -> np.ndarray:
        _check_images(images_BHWC, self.config.downsampling_factor)
        assert len(images_BHWC) <= self.batch_size
        return images_BHWC

    @torch.no_grad()
    def encode_on_device(self, images_NHWC: Tensor) -> Tensor:
        """Codes (N, h, w) int64 of uint8 images (N, H, W, 3), both on the device."""
        parts = images_NHWC.split(self.batch_size)
        return torch.cat([self._encode_batch(self._padded(p))[: len(p)] for p in parts])

    def decode(self, codes_Nhw: np.ndarray, progress: bool = False) -> np.ndarray:
        """Images (N, H, W, 3) uint8 of integer codes (N, h, w).

        Raises:
            InputError: the codes are not integers in 0..n_embed-1 of shape (N, h, w).
        """
        _check_codes(codes_Nhw, self.config.n_embed)
        vectors_KD = self._model.codebook
        return self._run(
            lambda codes_Bhw: self._decode_batch(vectors_KD[codes_Bhw].permute(0, 3, 1, 2)),
            codes_Nhw.astype(np.int64, copy=False),
            "decoding",
            progress,
        )

    def decode_vectors(self, vectors_NDhw: np.ndarray, progress: bool = False) -> np.ndarray:
        """Images (N, H, W, 3) uint8 of code vectors, float32."""
        return self._run(self._decode_batch, vectors_NDhw, "decoding", progress)

    def _codes(self, images_BHWC: Tensor) -> Tensor:
        return self._model.encode(to_model_range(images_BHWC).to(self._dtype))

    def _images(self, vectors_BDhw: Tensor) -> Tensor:
        return to_uint8(self._model.decode_embeddings(vectors_BDhw.to(self._dtype)))

    def _run(
        self,
        function: Callable[[Tensor], Tensor],
        inputs: np.ndarray,
        title: str,
        progress: bool,
    ) -> np.ndarray:
        """``function`` of every batch."""
        parts = _batches(len(inputs), self.batch_size, title, progress)
        return np.concatenate([*self._stream(function, (inputs[part] for part in parts))])

    @torch.inference_mode()
    def _stream(
        self, function: Callable[[Tensor], Tensor], batches: Iterable[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """``function`` of every batch; its results are taken while a GPU computes the next."""
        fetched: Callable[[], np.ndarray] | None = None
        for array in batches:
            batch = torch.from_numpy(np.ascontiguousarray(array))
            found = function(self._sent(self._padded(batch)))[: len(batch)]
            earlier, fetched = fetched, self._fetched(found)
            if earlier is not None:
                yield earlier()
        if fetched is not None:
            yield fetched()

    def _sent(self, batch: Tensor) -> Tensor:
        """The batch there; from pinned memory, or the host would wait for all work before it."""
        if self.device.type != "cuda":
            return batch.to(self.device)
        return batch.pin_memory().to(self.device, non_blocking=True)

    def _fetched(self, found: Tensor) -> Callable[[], np.ndarray]:
        """Start to copy ``found`` back; what is returned waits for that and gives it."""
        if self.device.type != "cuda":
            return found.numpy
        pinned, event = found.to("cpu", non_blocking=True), torch.cuda.Event()
        event.record()

        def take() -> np.ndarray:
            event.synchronize()
            # The copy frees the pinned memory for the next batches.
            return pinned.numpy().copy()

        return take

    def _padded(self, batch: Tensor) -> Tensor:
        """A compiled function wants batches of one size: the last one repeats its last item."""
        missing = self.batch_size - len(batch) if self._pads else 0
        return torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])])


def _ready(model: VQGAN, device: torch.device, dtype: torch.dtype) -> VQGAN:
    """A copy for inference there; on a GPU with channels last, as its convolutions want them."""
    model = copy.deepcopy(model).eval().requires_grad_(False).to(device)
    for name, parameter in model.named_parameters():
        if not name.startswith("quantize"):
            parameter.data = parameter.data.to(dtype)
        if device.type == "cuda" and parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def _unchanged(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return function


def _batches(count: int, batch_size: int, title: str, progress: bool) -> Iterator[slice]:
    starts = range(0, count, batch_size)
    for start in tqdm(starts, desc=title, unit="batch", disable=not progress):
        yield slice(start, start + batch_size)


def _check_images(images_NHWC: np.ndarray, factor: int) -> None:
    shape, dtype = images_NHWC.shape, images_NHWC.dtype
    good = images_NHWC.ndim == 4 and shape[0] > 0 and shape[3] == 3 and dtype == np.uint8
    if not good or shape[1] % factor or shape[2] % factor:
        raise InputError(
            f"images: found {dtype} {shape}, expected at least one, uint8 (N, H, W, 3), "
            f"H and W multiples of {factor}. Resize them with kyvo.images.preprocessing."
        )


def _check_codes(codes_Nhw: np.ndarray, n_embed: int) -> None:
    integers = np.issubdtype(codes_Nhw.dtype, np.integer)
    if codes_Nhw.ndim != 3 or not codes_Nhw.size or not integers:
        raise InputError(
            f"image codes: found {codes_Nhw.dtype} {codes_Nhw.shape}, expected integers (N, h, w)."
        )
    outside = (codes_Nhw < 0) | (codes_Nhw >= n_embed)
    if outside.any():
        first = int(np.argwhere(outside)[0][0])
        raise InputError(
            f"image codes: {codes_Nhw[outside][0]} in image {first} is outside 0..{n_embed - 1}. "
            "The codes belong to another VQGAN, or an id offset was not taken off."
        )
