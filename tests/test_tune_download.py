"""torchtune's ``tune download`` with the installed huggingface_hub puts Llama where README says."""

import os
import subprocess
import sys
from pathlib import Path

from fake_hub import serve

LLAMA = {
    "config.json": b"{}",
    "model.safetensors": b"weights " * 1000,
    "original/consolidated.00.pth": b"consolidated " * 1000,
    "original/params.json": b'{"dim": 2048}',
    "original/tokenizer.model": b"tokens " * 1000,
}


def test_llama_arrives_where_the_readme_says(tmp_path: Path) -> None:
    target = "./llama-3-models/Llama3.2-1B/"
    command = ["tune", "download", "meta-llama/Llama-3.2-1B", "--output-dir", target]
    with serve({"models/meta-llama/Llama-3.2-1B": LLAMA}) as hub:
        done = subprocess.run(
            [Path(sys.executable).parent / command[0], *command[1:]],
            cwd=tmp_path,
            env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    for path, content in LLAMA.items():
        assert (tmp_path / target / path).read_bytes() == content
