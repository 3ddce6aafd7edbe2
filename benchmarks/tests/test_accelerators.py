"""What is read of compiled programs and kept of them, and a step that is compiled for a TPU."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import jax
import ml_collections
import pytest

from benchmarks import accelerators, measuring, operations, scaling_trial
from benchmarks.accelerators import Row
from benchmarks.hlo import Program
from ds_jax.models.backbones import BACKBONES
from ds_jax.training import parallel

# As the TPU's compiler writes programs: a loop of two convolutions, one of which a fusion holds.
LOOP = """\
HloModule jit_step, is_scheduled=true

%fused (p.0: bf16[8,4,4,3], p.1: bf16[3,3,3,64]) -> bf16[8,4,4,64] {
  %p.0 = bf16[8,4,4,3]{3,0,2,1:T(8,128)(2,1)} parameter(0)
  %p.1 = bf16[3,3,3,64]{3,2,1,0:T(8,128)(2,1)} parameter(1)
  ROOT %conv.1 = bf16[8,4,4,64]{3,0,2,1:T(8,128)(2,1)} convolution(%p.0, %p.1), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, metadata={op_name="jit(_fun)/while/body/vgg16/block1_conv1/conv_general_dilated"}
}

%moved (p.2: f32[3,3,3,64]) -> bf16[3,3,3,64] {
  %p.2 = f32[3,3,3,64]{3,2,1,0:T(8,128)} parameter(0)
  ROOT %convert.1 = bf16[3,3,3,64]{3,2,1,0:T(8,128)(2,1)} convert(%p.2)
}

%body (loop: (s32[], f32[8,4,4,64])) -> (s32[], f32[8,4,4,64]) {
  %loop = (s32[]{:T(128)}, f32[8,4,4,64]{3,0,2,1:T(8,128)}, /*index=2*/f32[3,3,3,64]{3,2,1,0}) parameter(0)
  %kernel = f32[3,3,3,64]{3,2,1,0:T(8,128)} get-tuple-element(%loop), index=2
  %row = bf16[8,48]{1,0:T(8,128)(2,1)} fusion(%loop), kind=kLoop, calls=%nothing, metadata={op_name="jit(_fun)/while/body/take/gather"}, backend_config={"estimated_cycles":"7"}
  %x = bf16[8,4,4,3]{3,0,2,1:T(8,128)(2,1)} fusion(%row), kind=kLoop, calls=%nothing, metadata={op_name="jit(_fun)/while/body/Net/Net.lower/gather"}, backend_config={"estimated_cycles":"20"}
  %fusion.2 = bf16[3,3,3,64]{3,2,1,0:T(8,128)(2,1)} fusion(%kernel), kind=kLoop, calls=%moved, backend_config={"window_config":{"estimated_cycles":"80"}}
  %fusion.1 = bf16[8,4,4,64]{3,0,2,1:T(8,128)(2,1)} fusion(%x, %fusion.2), kind=kOutput, calls=%fused, metadata={op_name="jit(_fun)/while/body/vgg16/block1_conv1/conv_general_dilated"}, backend_config={"window_config":{"estimated_cycles":"600"}}
  %wide = f32[8,4,4,64]{3,0,2,1:T(8,128)} convert(%fusion.1), backend_config={"estimated_cycles":"6"}
  %all-reduce-start = f32[10,2]{1,0} all-reduce-start(%wide), channel_id=1, to_apply=%add
  %conv.2 = f32[8,4,4,16]{3,0,2,1:T(8,128)} convolution(%wide, %kernel), window={size=1x1}, dim_labels=b01f_01io->b01f, metadata={op_name="jit(_fun)/while/body/head/conv1/conv_general_dilated"}, backend_config={"estimated_cycles":"287"}
  %all-reduce-done = f32[10,2]{1,0} all-reduce-done(%all-reduce-start)
  %dot = f32[8,16]{1,0} convolution(%conv.2, %kernel), dim_labels=bf_io->bf, metadata={op_name="jit(_fun)/while/body/head/dot_general"}
  %sum = (f32[], bf16[3]{0}) all-reduce(%dot, %dot), channel_id=2, to_apply=%add
  ROOT %out = (s32[], f32[8,4,4,64], f32[3,3,3,64]) tuple(%dot, %wide, %kernel)
}

%condition (loop.1: (s32[], f32[8,4,4,64])) -> pred[] {
  ROOT %less = pred[] constant(true)
}

ENTRY %main (corpus: u8[99,5,5]) -> f32[8,4,4,64] {
  %corpus = u8[99,5,5]{2,1,0:T(8,128)(4,1)} parameter(0)
  %copy = u8[99,5,5]{0,2,1:T(8,128)(4,1)} copy(%corpus), backend_config={"estimated_cycles":"1000"}
  %while = (s32[], f32[8,4,4,64]) while(%copy), condition=%condition, body=%body
  ROOT %result = f32[8,4,4,64] get-tuple-element(%while), index=1
}
"""  # noqa: E501
CUDA = """\
ENTRY %main (x: bf16[8,4,4,64]) -> bf16[8,4,4,64] {
  %x = bf16[8,4,4,64]{3,2,1,0} parameter(0)
  %w = f32[64,3,3,64]{3,2,1,0} parameter(1)
  ROOT %conv.0 = (bf16[8,4,4,64]{3,2,1,0}, u8[0]{0}) custom-call(%x, %w), window={size=3x3}, custom_call_target="__cudnn$convBiasActivationForward", metadata={op_name="jit(_fun)/vgg16/conv"}
}
"""  # noqa: E501


def test_a_step_is_read_of_a_program():
    found = Program(LOOP).report(steps=10)
    assert found["cycles"] == 7 + 20 + 80 + 600 + 6 + 287 + 1000 / 10
    assert found["cycles of convolutions"] == 600 + 287
    assert found["cycles of inputs"] == 7 + 20 + 1000 / 10
    assert found["cycles once a dispatch"] == 1000
    assert found["convolutions"] == 2  # and one product
    assert found["float32 convolutions"] == {"backbone": 0, "heads": 1}
    assert found["blocks"] == {"block1": {"forward": 600, "gradients": 0, "rest": 0}}


def test_what_moves_numbers_is_listed_by_its_share():
    moves = Program(LOOP).report(steps=10)["moves"]
    assert [(move["op"], move["shape"]) for move in moves] == [
        ("copy", "u8[99,5,5]"),
        ("fusion", "bf16[3,3,3,64]"),
    ]
    assert [move["share"] for move in moves] == pytest.approx([100 / 1100, 80 / 1100])


def test_collectives_overlap_with_what_is_computed_between_start_and_end():
    assert Program(LOOP).report(steps=10)["collectives"] == [
        {"name": "all-reduce", "numbers": 20, "bytes": 80, "overlaps": True},
        {"name": "all-reduce", "numbers": 4, "bytes": 10, "overlaps": False},
    ]


def test_a_gpu_s_program_has_no_cycles_and_its_convolutions_are_calls():
    found = Program(CUDA).report(steps=1)
    assert (found["cycles"], found["moves"]) == (0, [])
    assert found["float32 convolutions"] == {"backbone": 1, "heads": 0}


ROW = Row("v5e", 1, "ds_am", 224, 32, "", "batch", "training")


def test_the_share_of_peak_of_a_block_is_that_of_its_convolutions(capsys):
    flops = operations.block_flops(224, trained=True)
    assert sum(flops) == operations.step_flops(224)
    cycles = flops[0] * ROW.batch / accelerators.CHIPS["v5e"].flops_a_cycle
    blocks = {"block1": {"forward": cycles, "gradients": cycles, "rest": 0}}
    one = {"row": dataclasses.asdict(ROW), "pictures": ROW.batch, "blocks": blocks}
    accelerators.show_blocks([one | {"cycles": 4 * cycles}])
    assert capsys.readouterr().out.split()[-5:] == ["block1", "25.0%", "25.0%", "0.0%", "50%"]


def test_hours_are_those_of_all_steps_of_all_folds():
    config = ml_collections.ConfigDict({"folds": {"count": 10}, "train": {"epochs": 40}})
    # Of 1,000 utterances each fold tests 100, and 90 choose the epoch: 26, 3 and 4 batches.
    fold = 40 * (26 * 2.0 + 3 * 1.0) + 4 * 1.0
    for row, rounds in (
        (ROW, 10),
        (dataclasses.replace(ROW, count=8), 10),
        (dataclasses.replace(ROW, count=8, layout="folds"), 2),
        (dataclasses.replace(ROW, count=32, layout="folds"), 1),
    ):
        assert accelerators.hours(config, 1000, row, 2.0, 1.0) == rounds * fold / 3600


def test_the_paper_s_experiments_need_both_steps_of_their_configs():
    one = {"row": dataclasses.asdict(ROW), "seconds": 0.03}
    judging = {"row": {**one["row"], "step": "judging"}, "seconds": 0.01}
    small = [{**x, "row": {**x["row"], "size": 128}} for x in (one, judging)]
    assert accelerators.experiments([one, *small]) == []
    found = accelerators.experiments([one, judging])
    assert [cells[:3] for cells in found] == [
        ("ds_am_elra", "1 x v5e", 32),
        ("ds_am_emomatch", "1 x v5e", 32),
    ]
    assert found[0][3] == pytest.approx(10 * 40 * (153 * 0.03 + 17 * 0.01) / 3600, rel=0.01)


def test_rows_are_all_that_the_flags_name_and_nothing_twice(monkeypatch, tmp_path):
    rows = []

    def compiled(row, known):
        rows.append(row)
        return {"row": dataclasses.asdict(row), "fits": False}

    monkeypatch.setattr(accelerators, "compiled", compiled)
    output = tmp_path / "found.json"
    flags = ["--counts", "1", "8", "--layouts", "batch", "folds", "--systems", "ds_am"]
    accelerators.main([*flags, "--steps", "training", f"--output={output}"])
    assert [(row.count, row.layout) for row in rows] == [(1, "batch"), (8, "batch"), (8, "folds")]
    assert len(json.loads(output.read_text())) == 3


def test_the_largest_batch_is_found_by_doubling(monkeypatch, tmp_path):
    def compiled(row, known):
        return {"row": dataclasses.asdict(row), "fits": row.batch <= 100}

    monkeypatch.setattr(accelerators, "compiled", compiled)
    monkeypatch.setattr(accelerators, "show", lambda found: None)
    flags = ["--largest", "--steps", "training", f"--output={tmp_path / 'found.json'}"]
    found = accelerators.main(flags)
    assert [one["row"]["batch"] for one in found] == [32, 64, 128]


@pytest.fixture
def small(monkeypatch):
    """A tiny VGG16, set up as on a v5e."""
    monkeypatch.setitem(BACKBONES, "vgg16", scaling_trial.SMALL)
    accelerators.set_up.cache_clear()
    yield dataclasses.replace(ROW, size=32, batch=4)
    accelerators.set_up.cache_clear()


@pytest.mark.parametrize(
    ("step", "layout"),
    [
        ("judging", "batch"),
        pytest.param("training", "folds", marks=pytest.mark.slow),
    ],
)
def test_the_program_s_own_steps_are_lowered_for_other_devices(small, step, layout):
    """Here for the CPU's own, as if it were a chip."""
    row = dataclasses.replace(small, layout=layout, step=step)
    setup = accelerators.set_up(row.system, row.size, row.batch, row.freeze, row.chip)
    program, batches = accelerators.lowered(setup, row, jax.devices()[:1])
    assert batches == -(-accelerators.PICTURES // 4 // parallel.DISPATCHES)
    text = program.as_text()
    assert f"tensor<{accelerators.PICTURES}x" in text
    assert "bf16" in text
    if step == "training":
        assert accelerators.timed(setup, row) > 0


TRIAL = """
import sys
from unittest import mock
from benchmarks import accelerators, scaling_trial
from ds_jax.models.backbones import BACKBONES

with mock.patch.dict(BACKBONES, vgg16=scaling_trial.SMALL):
    accelerators.main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")
def test_a_tiny_step_is_compiled_for_eight_tpus_and_kept(tmp_path):
    output = tmp_path / "found.json"
    flags = ["--counts=8", "--sizes=32", "--batches=8", "--steps=training", f"--output={output}"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "0"}
    command = [sys.executable, "-c", TRIAL, *flags]

    def run() -> tuple[dict, str]:
        done = subprocess.run(
            command, env=environment, cwd=measuring.ROOT, capture_output=True, text=True
        )
        assert not done.returncode, done.stderr
        (found,) = json.loads(output.read_text()).values()
        return found, done.stdout

    found, printed = run()
    assert "compiling 8 x v5e share a batch" in printed
    assert found["fits"]
    assert found["float32 convolutions"]["backbone"] == 0
    assert max(one["numbers"] for one in found["collectives"]) > 4000  # the gradients
    assert 0 < found["seconds at the peak"] < found["seconds"]
    assert found["seconds"] == found["cycles"] / accelerators.CHIPS["v5e"].clock
    assert operations.peak(accelerators.CHIPS["v5e"].kind) == 197e12
    again, printed = run()
    assert again == found
    assert "compiling" not in printed.replace("compiling the network", "")
