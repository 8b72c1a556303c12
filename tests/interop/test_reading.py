"""Texts and command lines are taken apart without a shell, and what is wrong with them is a sentence with its line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.errors import InputError
from studio.foreign import RUN
from studio.interop.reading import read_file, read_text

SCRIPT = """#!/bin/bash
# trains
set -x
MODEL=org/model
export WANDB_MODE=offline
CUDA_VISIBLE_DEVICES=0,1 accelerate launch --config_file a/b.yaml --multi_gpu --num_processes 2 src/train.py \\
    --model_name_or_path ${MODEL} --do_train --learning_rate=1e-4 --note 'two words' \\
    --targets a b c --dataloader-num-workers 4 > log.txt 2>&1
"""


def test_a_script_is_its_one_command_with_variables_launcher_and_options() -> None:
    read = read_text(SCRIPT)
    command = read.command
    assert command is not None
    assert (command.program, command.path, command.words) == ("train.py", "src/train.py", ())
    assert command.processes == 2
    assert command.variables == {"MODEL": "org/model", "WANDB_MODE": "offline", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert read.values == {
        "model_name_or_path": "org/model", "do_train": True, "learning_rate": "1e-4", "note": "two words",
        "targets": ["a", "b", "c"], "dataloader_num_workers": "4",
    }  # fmt: skip
    assert read.lines["learning_rate"] == 6 or read.lines["learning_rate"] == 7
    assert read.place("targets") == "the text, line 8: targets"


@pytest.mark.parametrize(
    ("line", "program", "words", "processes"),
    [
        ("torchrun --nproc_per_node 4 --nnodes=2 src/train.py --a 1", "train.py", (), 8),
        ("deepspeed --num_gpus 8 train.py --a 1", "train.py", (), 8),
        ("python3 -m torch.distributed.run --nproc-per-node=2 a.py --a 1", "a.py", (), 2),
        ("python -m axolotl.cli.train x.yml --a 1", "axolotl.cli.train", ("x.yml",), None),
        ("accelerate launch -m axolotl.cli.train x.yml --a 1", "axolotl.cli.train", ("x.yml",), None),
        ("uv run llamafactory-cli train x.yaml b=2 --a 1", "llamafactory-cli", ("train", "x.yaml", "b=2"), None),
        ("FOO=1 nohup swift sft --a 1 &", "swift", ("sft",), None),
        ("cd /tmp && swift sft --a 1 | tee log", "swift", ("sft",), None),
    ],
)
def test_launchers_are_seen_through(line: str, program: str, words: tuple[str, ...], processes: int | None) -> None:
    command = read_text(line).command
    assert command is not None
    assert (command.program, command.words, command.processes) == (program, words, processes)
    assert command.options == {"a": "1"}


def test_numbers_and_lines_of_yaml_and_json() -> None:
    read = read_text("# one\na: 1e-4\n\n'b': no\n")
    assert read.values == {"a": 0.0001, "b": "no"}
    assert read.lines == {"a": 2, "b": 4}
    assert read_text('{\n "x": 1,\n "y": [1]}').lines == {"x": 2, "y": 3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: [1", "line 2, column 6: not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "line 1, column 4: not valid YAML"),
        ("a: &x {}\nb: *x\na: 2", "line 3, column 1: not valid YAML: found duplicate key"),
        ("a: &a [x,x,x,x,x,x,x,x]\n" + "".join(
            f"b{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else '*a'] * 8)}]\n" for n in range(8)
        ), "this is not a config: it has more than 20,000 values"),
        ('{"a": 1,}', "line 1: not valid JSON"),
        ("- a\n- b", "it holds a list instead of keys"),
        ("1: 2", "the key 1 is not a word"),
        ("", "it is empty"),
        ("a: b\0", "this is not text"),
        ("a: " + "x" * RUN.bytes, "it has more than 256 KB"),
        ("llamafactory-cli train --a $HOME", "the variable $HOME is not set in it"),
        ("llamafactory-cli train --a $(id)", "would run a command of its own"),
        ("llamafactory-cli train --a `id`", "would run a command of its own"),
        ("llamafactory-cli train --a 'b", "line 1: the command cannot be read"),
        ("swift sft --a 1; swift sft --a 2", "it has 2 commands: swift, swift"),
        ("X=1", "there is no command in it"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(text: str, said: str) -> None:
    with pytest.raises(InputError) as wrong:
        read_text(text)
    assert said in wrong.value.sentence
    assert wrong.value.where.startswith("the text")


def test_files_that_are_none(tmp_path) -> None:
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    (tmp_path / "long.yaml").write_bytes(b"#" * (RUN.bytes + 1))
    for name, said in {
        "picture.yaml": "byte 0 is not UTF-8", "long.yaml": "more than 256 KB", "none.yaml": "there is no such file",
    }.items():  # fmt: skip
        with pytest.raises(InputError) as wrong:
            read_file(tmp_path / name)
        assert said in wrong.value.sentence
        assert name in wrong.value.where
    with pytest.raises(InputError):
        read_file(tmp_path)


@settings(max_examples=150)
@given(st.one_of(st.text(max_size=200), st.text("-=$'\"\\{}[]:;&|<> \nab1", max_size=120)))
def test_no_text_is_more_than_a_sentence(text: str) -> None:
    try:
        read = read_text(text)
    except InputError as wrong:
        assert wrong.sentence
    else:
        assert read.kind in ("mapping", "command", "python")
