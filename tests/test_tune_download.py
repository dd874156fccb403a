"""torchtune's ``tune download`` with the installed huggingface_hub puts Llama where README says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import serve

LLAMA = {
    "config.json": b"{}",
    "model.safetensors": b"weights " * 1000,
    "original/consolidated.00.pth": b"consolidated " * 1000,
    "original/params.json": b'{"dim": 2048}',
    "original/tokenizer.model": b"tokens " * 1000,
}


COMMANDS = (Path(__file__).parent / "released/commands.txt").read_text().splitlines()


@pytest.mark.slow
def test_llama_arrives_and_moves_as_the_readme_says(tmp_path: Path) -> None:
    """Its commands for both models, word for word."""
    downloads = [line for line in COMMANDS if line.startswith("tune download ")]
    moves = [line for line in COMMANDS if line.startswith("mv ")]
    assert len(downloads) == len(moves) == 2
    models = [line.split()[2] for line in downloads]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with serve({f"models/{model}": LLAMA for model in models}) as hub:
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "cache"), "PATH": path}
        for line in [*downloads, *moves]:
            done = subprocess.run(
                ["bash", "-c", line],
                cwd=tmp_path,
                env={**os.environ, **settings},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            if line in downloads:
                target = tmp_path / line.split()[-1]
                for name, content in LLAMA.items():
                    assert (target / name).read_bytes() == content
    for line in moves:
        target = tmp_path / line.split()[-1]
        for name in ("consolidated.00.pth", "params.json", "tokenizer.model"):
            assert (target / name).read_bytes() == LLAMA[f"original/{name}"]
