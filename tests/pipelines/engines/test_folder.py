import os
import subprocess
import sys

import pytest

from pipelines.engines import folder as module
from pipelines.engines.folder import folder_digest, model_folder
from schemas.errors import EngineError


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model"
    (path / "sub").mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "sub" / "weights.safetensors").write_bytes(bytes(1000))
    return path


def test_the_digest_covers_names_and_contents(model, tmp_path):
    base = folder_digest(model)
    assert len(base) == 32
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    (copy / "sub").mkdir()
    (copy / "config.json").write_text("{}")
    (copy / "sub" / "weights.safetensors").write_bytes(bytes(1000))
    assert folder_digest(copy) == base
    (copy / "config.json").write_text("[]")
    assert folder_digest(copy) != base
    (copy / "config.json").write_text("{}")
    (copy / "config.json").rename(copy / "settings.json")
    assert folder_digest(copy) != base


def test_hidden_files_and_the_readme_do_not_count(model):
    base = folder_digest(model)
    (model / "README.md").write_text("words")
    (model / ".cache").mkdir()
    (model / ".cache" / "state").write_text("x")
    (model / ".gitattributes").write_text("x")
    assert folder_digest(model) == base
    (model / "sub" / "README.md").write_text("part of the content below the top")
    assert folder_digest(model) != base


def test_unchanged_files_are_read_once(model, monkeypatch):
    reads = []
    digest_file = module.hashlib.file_digest

    def counted(stream, name):
        reads.append(stream.name)
        return digest_file(stream, name)

    monkeypatch.setattr(module.hashlib, "file_digest", counted)
    base = folder_digest(model)
    assert folder_digest(model) == base
    assert len(reads) == 2
    weights = model / "sub" / "weights.safetensors"
    weights.write_bytes(b"1" * 1000)
    os.utime(weights, ns=(1, 1))
    assert folder_digest(model) != base
    assert len(reads) == 3


def test_what_is_not_there_is_one_clear_line(tmp_path, model):
    with pytest.raises(EngineError, match=r"nothing does not exist or is empty$"):
        folder_digest(tmp_path / "nothing")
    for name in (str(tmp_path / "nothing"), "./nothing", "a/b/c", "word"):
        with pytest.raises(EngineError, match=r"does not exist; give a folder or a Hub id"):
            model_folder(name)
    with pytest.raises(EngineError, match=r"holds no config\.json"):
        model_folder(str(model / "sub"))
    assert model_folder(str(model)) == model.resolve()


def test_a_hub_id_is_found_in_the_cache_or_told(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EngineError) as caught:
        model_folder("someone/absent")
    assert str(caught.value).startswith(
        "model someone/absent is not in the local cache and cannot be downloaded ("
    )
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match="neither a model folder nor a Hub id"):
        model_folder("some one/absent")
    asked = []

    def snapshot(model, **options):
        asked.append((model, options["revision"], options["local_files_only"]))
        assert not any(pattern.endswith(".bin") for pattern in options["allow_patterns"])
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert model_folder("someone/present", "v1") == tmp_path
    assert asked == [("someone/present", "v1", True)]


def test_importing_the_engines_imports_nothing_heavy():
    names = "folder, local, scripted, vllm"
    code = (
        f"from pipelines.engines import {names}; import sys; "
        "print([m for m in ('torch', 'transformers', 'vllm', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
