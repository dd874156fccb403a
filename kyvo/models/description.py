"""What a checkpoint says of itself, so that it opens without the config that it was trained with.

``kyvo.json`` beside the weights holds the model's builder and size, the vocabulary and the schema
by content, the tasks, both tokenizers, and the codebook's hash. A small tokenizer is a file of the
same folder; a large one is named by its path and its hash.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from kyvo.common.config import Component, From, build_config
from kyvo.common.errors import InputError
from kyvo.common.files import file_hash, read_json, require_file
from kyvo.common.weight_files import check_weights, read_safetensors
from kyvo.images.checkpoint import RUN_WEIGHTS, load_vqgan
from kyvo.images.codebook import codebook_hash, load_codebook
from kyvo.images.embedding_files import find_vqgan
from kyvo.images.vqgan import VQGAN, VQGANConfig
from kyvo.models.checkpoints import Files
from kyvo.models.llama import KyvoModel
from kyvo.scenes import SceneCodec, Schema
from kyvo.tokens.sequences import CentreFirst, Segment, get_task
from kyvo.tokens.text_tokenizer import TextTokenizer, find_text_tokenizer, load_text_tokenizer
from kyvo.tokens.vocabulary import Vocabulary

DESCRIPTION = "kyvo.json"
IMAGE_TOKENIZER = "image_tokenizer.safetensors"
TEXT_TOKENIZER = "text_tokenizer.json"
# What makes no id mean something else, and no weight be used in another way.
_TRAINING_ONLY = {"initial_std", "head_number_scale", "train_text_embedding", "max_seq_len"}
_MOST_COPIED_BYTES = 16 << 20


@dataclass(frozen=True)
class TextTokenizerFile:
    """A text tokenizer's file; a checkpoint holds a copy of a ``.json`` file.

    Attributes:
        path: the file.
        sha256: of its content.
    """

    path: Path
    sha256: str

    @property
    def is_copied(self) -> bool:
        """Whether checkpoints hold the file."""
        return self.path.suffix == ".json"


@dataclass(frozen=True)
class ImageTokenizerFiles:
    """A VQGAN.

    Attributes:
        path: its run folder, or the copy of its weights in a checkpoint.
        sha256: of the weights in the run folder.
        config: its shape, where checkpoints hold its weights; None where those are too large.
    """

    path: Path
    sha256: str
    config: VQGANConfig | None = None


_Tokenizer = TypeVar("_Tokenizer", TextTokenizerFile | None, ImageTokenizerFiles | None)


@dataclass(frozen=True)
class ModelDescription:
    """All that opening a checkpoint needs beside its weights.

    Attributes:
        model: builder of the language model and its size.
        vocabulary: the id space, by content.
        schema: fields and words of an object, by content; None if the model was trained without.
        tasks: what it was trained on, such as ``I-3``.
        codes_per_image: image codes of every image; 0 if no task has one.
        centre_first: which images are written centre-first.
        text_tokenizer: of instructions, questions and the words of a scene.
        image_tokenizer: None if it was not beside the codebook.
        codebook_sha256: ``codebook_hash`` of the code vectors, whatever precision the weights
            have; None if no task has an image, and in older checkpoints.
    """

    model: Annotated[Component, From(("kyvo.models",))]
    vocabulary: Vocabulary
    schema: Schema | None
    tasks: tuple[str, ...]
    codes_per_image: int
    centre_first: CentreFirst
    text_tokenizer: TextTokenizerFile | None
    image_tokenizer: ImageTokenizerFiles | None
    codebook_sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The description as JSON values; what checkpoints hold is named by its file there."""
        values = dataclasses.asdict(dataclasses.replace(self, model=Component("")))
        values["model"] = {"_component_": self.model.path, **self.model.arguments}
        if self.text_tokenizer and self.text_tokenizer.is_copied:
            values["text_tokenizer"]["path"] = TEXT_TOKENIZER
        if self.image_tokenizer and self.image_tokenizer.config:
            values["image_tokenizer"]["path"] = IMAGE_TOKENIZER
        return dict(_plain(values))

    def build_model(self) -> KyvoModel:
        """The model with random weights."""
        model: KyvoModel = self.model.build(vocabulary=self.vocabulary)
        return model

    def differences(self, other: "ModelDescription") -> list[str]:
        """What makes ids or weights of ``other`` mean something else; both values in each line.

        A task of ``other`` that the model was not trained on is one too.
        """
        mine, theirs = self._meaning(), other._meaning()
        parts = [part for part in {**mine, **theirs} if mine.get(part) != theirs.get(part)]
        lines = [
            f"{part}: the checkpoint has {_short(mine.get(part))}, the config "
            f"{_short(theirs.get(part))}"
            for part in parts
        ]
        layouts = {_layout(task) for task in self.tasks}
        strange = [task for task in other.tasks if _layout(task) not in layouts]
        if strange:
            lines.append(
                f"task: the checkpoint was trained on {', '.join(self.tasks)}, the config asks for "
                f"{', '.join(strange)}"
            )
        return lines

    def _meaning(self) -> dict[str, Any]:
        """What decides which id means what; names and paths do not."""
        vocabulary = {
            field.name: getattr(self.vocabulary, field.name)
            for field in dataclasses.fields(Vocabulary)
            if field.name not in ("name", "shipped_tokenizer")
        }
        return {
            **{f"vocabulary.{name}": value for name, value in vocabulary.items()},
            **{
                f"model.{name}": value
                for name, value in self.model.with_all_arguments().items()
                if name not in _TRAINING_ONLY
            },
            "schema": self.schema.fields if self.schema else None,
            "codes_per_image": self.codes_per_image,
            "centre_first": self.centre_first,
            "text_tokenizer": self.text_tokenizer.sha256 if self.text_tokenizer else None,
        }


def describe_model(
    model: Component,
    vocabulary: Vocabulary,
    schema: Schema | None,
    tokenizer: Path | None,
    codebook: Path,
    tasks: tuple[str, ...],
    codes_per_image: int,
    centre_first: CentreFirst,
) -> ModelDescription:
    """The description of a model from the parts of its config.

    Args:
        tokenizer: file or folder of the text tokenizer; None: the vocabulary's own, if it has one.
        codebook: its file; the image tokenizer is the VQGAN in the same folder, if there is one.

    Raises:
        InputError: a file of a tokenizer or of the codebook is missing or unreadable.
    """
    has_text = tokenizer is not None or vocabulary.shipped_tokenizer is not None
    return ModelDescription(
        model,
        vocabulary,
        schema,
        tasks,
        codes_per_image,
        centre_first,
        describe_text_tokenizer(tokenizer, vocabulary) if has_text else None,
        _describe_image_tokenizer(codebook.parent) if codes_per_image else None,
        codebook_hash(load_codebook(codebook, vocabulary.num_image_codes))
        if codes_per_image
        else None,
    )


def describe_text_tokenizer(tokenizer: Path | None, vocabulary: Vocabulary) -> TextTokenizerFile:
    """The tokenizer file that ``find_text_tokenizer`` finds, and its hash.

    Raises:
        InputError: there is none.
    """
    path = require_file(find_text_tokenizer(tokenizer, vocabulary), "text tokenizer")
    return TextTokenizerFile(path, file_hash(path))


def read_description(folder: Path) -> ModelDescription | None:
    """The description in a checkpoint's ``folder``; None if it has none, as released files.

    Raises:
        InputError: it cannot be read; all that is wrong is listed.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        return None
    values = read_json(path, "description of the checkpoint")
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected an object. Take another checkpoint.")
    found = build_config(ModelDescription, values, str(path))
    return dataclasses.replace(
        found,
        text_tokenizer=_beside(found.text_tokenizer, folder),
        image_tokenizer=_beside(found.image_tokenizer, folder),
    )


def description_files(description: ModelDescription) -> Files:
    """The files of a checkpoint that say what it is: the description and small tokenizers.

    Raises:
        InputError: a tokenizer is no longer there, or is not the one that was described.
    """
    files: dict[str, Mapping[str, Any]] = {DESCRIPTION: description.to_json()}
    text, image = description.text_tokenizer, description.image_tokenizer
    if text is not None and text.is_copied:
        files[TEXT_TOKENIZER] = read_json(text.path, "text tokenizer")
    if image is not None and image.config is not None:
        files[IMAGE_TOKENIZER] = _load_vqgan(image).state_dict()
    return files


def open_text_tokenizer(description: ModelDescription) -> TextTokenizer:
    """The model's text tokenizer.

    Raises:
        InputError: the model has none, or the file is gone or has changed.
    """
    text = description.text_tokenizer
    if text is None:
        raise InputError(
            "the model was trained without a text tokenizer. Set tokenizer in its training config."
        )
    # The manifest has the copy's own hash: our JSON writer lays it out anew.
    if text.is_copied:
        return load_text_tokenizer(text.path, description.vocabulary)
    return load_text_tokenizer(_unchanged(text.path, text.sha256), description.vocabulary)


def open_image_tokenizer(description: ModelDescription) -> VQGAN:
    """The model's VQGAN, in float32 on the CPU.

    Raises:
        InputError: the checkpoint names none, or its files are gone or have changed.
    """
    if description.image_tokenizer is None:
        raise InputError(
            "the checkpoint names no image tokenizer. Put the VQGAN's run folder beside the "
            "codebook of the training config."
        )
    return _load_vqgan(description.image_tokenizer)


def open_codec(description: ModelDescription) -> SceneCodec:
    """Writer and reader of the model's scenes.

    Raises:
        InputError: the model was trained without a schema or a text tokenizer.
    """
    if description.schema is None:
        raise InputError(
            "the model was trained without a schema. Set scene_schema in its training config."
        )
    tokenizer = open_text_tokenizer(description)
    return SceneCodec(description.schema, description.vocabulary, tokenizer)


def _describe_image_tokenizer(folder: Path) -> ImageTokenizerFiles | None:
    if len(list(folder.glob(f"**/{RUN_WEIGHTS}"))) != 1:
        return None
    run = find_vqgan(folder)
    weights = run / RUN_WEIGHTS
    is_small = weights.stat().st_size <= _MOST_COPIED_BYTES
    config = load_vqgan(run).config if is_small else None
    return ImageTokenizerFiles(run, file_hash(weights), config)


def _load_vqgan(image: ImageTokenizerFiles) -> VQGAN:
    if image.config is None or image.path.is_dir():
        _unchanged(image.path / RUN_WEIGHTS, image.sha256)
        return load_vqgan(image.path)
    model = VQGAN(image.config)
    weights = read_safetensors(image.path, "image tokenizer")
    check_weights(weights, model.state_dict(), f"image tokenizer: {image.path}")
    model.load_state_dict(weights)
    return model.eval()


def _beside(files: _Tokenizer, folder: Path) -> _Tokenizer:
    """``files`` with the path of their copy in ``folder``, where there is one."""
    copy = folder / files.path.name if files is not None else folder
    return dataclasses.replace(files, path=copy) if files is not None and copy.exists() else files


def _unchanged(path: Path, sha256: str) -> Path:
    """``path``, after a look at its content."""
    if not path.is_file():
        raise InputError(f"{path}: no such file, and the checkpoint needs it. Put it back.")
    if file_hash(path) != sha256:
        raise InputError(
            f"{path} has changed: the checkpoint needs the file with SHA-256 {sha256}."
        )
    return path


def _layout(task_name: str) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    task = get_task(task_name)
    return task.inputs, task.outputs


def _plain(value: Any) -> Any:
    """``value`` with paths as strings and tuples as lists."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
