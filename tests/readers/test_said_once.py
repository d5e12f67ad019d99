"""What readers would do otherwise is said once a model, by one process."""

import warnings

from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import read_config, write_json
from ropewalk.readers.spelling_checks import warn_of_other_readers, warn_of_spellings


def test_what_version_4_would_read_is_said_once_and_by_the_first_process_alone(tmp_path, monkeypatch, recwarn, caplog):
    warnings.simplefilter("always")
    model = testing.tiny_directory(tmp_path / "model")
    config = read_config(model)
    config.pop("rope_theta", None)
    config.pop("rope_scaling", None)
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 100000.0}  # as transformers 5 saves it
    write_json(model / "config.json", config)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    warn_of_other_readers(Checkpoint.open(model))
    assert not recwarn.list
    monkeypatch.setenv("RANK", "0")
    for _ in range(3):
        warn_of_other_readers(Checkpoint.open(model))
    assert ["read rightly here" in str(each.message) for each in recwarn] == [True]
    recwarn.clear()
    warn_of_spellings(Checkpoint.open(model))  # before it is measured or planned, which is done here
    assert not recwarn.list
    caplog.set_level("INFO", "ropewalk")
    warn_of_spellings(Checkpoint.open(model), makes=True)  # before it is extended, trained, exported
    said = f"{model} is read rightly here; transformers 4, MLX and Ollama do so after: ropewalk doctor {model} --fix"
    assert [each.getMessage() for each in caplog.records] == [
        said
    ] and not recwarn.list  # nothing is wrong with what is made
    config["rope_theta"] = 100000.0
    config["rope_scaling"] = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}
    write_json(model / "config.json", config)
    warn_of_spellings(Checkpoint.open(model))  # one of the two is wrong, here as elsewhere
    assert ["say two things" in str(each.message) for each in recwarn] == [True]
