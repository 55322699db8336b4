"""`run --dry-run`: the plan of a study, from configurations and headers alone."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from command import invoke
from hub import at_hub, serve_models
from mergefront.errors import SpecError, StudyError
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.checkpoints.outline import outline_model, write_outline
from mergefront.study import StudySpec
from mergefront.study.api import run
from mergefront.study.dry_run import plan_study
from mergefront.study.storage.connection import load_study
from small_study import write_spec

REPOSITORY = Path(__file__).parents[2]
# Qwen3-4B's shapes: 36 layers, grouped queries, a tied head.
HIDDEN, INNER, LAYERS, HEADS, GROUPS, WIDTH, WORDS = 2560, 9728, 36, 32, 8, 128, 151936


def _qwen(directory: Path) -> Path:
    """Write a model of full size that takes no room, in two shards, with the demo's tokenizer."""
    directory.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(BASE / name, directory)
    for path in BASE.glob("*.jinja"):
        shutil.copy(path, directory)
    config = {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS, "head_dim": WIDTH, "vocab_size": WORDS,
        "tie_word_embeddings": True, "max_position_embeddings": 262144,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    shapes: dict[str, list[int]] = {"model.embed_tokens.weight": [WORDS, HIDDEN]}
    for i in range(LAYERS):
        layer = {
            "self_attn.q_proj": [HEADS * WIDTH, HIDDEN],
            "self_attn.k_proj": [GROUPS * WIDTH, HIDDEN],
            "self_attn.v_proj": [GROUPS * WIDTH, HIDDEN],
            "self_attn.o_proj": [HIDDEN, HEADS * WIDTH],
            "self_attn.q_norm": [WIDTH], "self_attn.k_norm": [WIDTH],
            "mlp.gate_proj": [INNER, HIDDEN], "mlp.up_proj": [INNER, HIDDEN],
            "mlp.down_proj": [HIDDEN, INNER], "input_layernorm": [HIDDEN],
            "post_attention_layernorm": [HIDDEN],
        }  # fmt: skip
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = [HIDDEN]
    shards = {name: f"model-{1 + ('.1' in name)}.safetensors" for name in shapes}
    for shard in set(shards.values()):
        outline = {n: ("BF16", shape) for n, shape in shapes.items() if shards[n] == shard}
        write_outline(directory / shard, outline)
    index = {"metadata": {}, "weight_map": shards}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def _ready_spec(folder: Path, base: str, expert: str) -> Path:
    """Write the ready spec of a 4B pair with local questions."""
    content = yaml.safe_load((REPOSITORY / "examples" / "qwen3-4b.yaml").read_text())
    content["models"] |= {"base": base, "experts": [expert]}
    aime = {"problem": "Find {i}.", "answer": "{i}"}
    gpqa = {"Question": "Which {i}?", "Correct Answer": "yes {i}"}
    gpqa |= {f"Incorrect Answer {k}": f"no {k} {{i}}" for k in (1, 2, 3)}
    files = [_rows(folder / "aime.jsonl", aime, 30), _rows(folder / "gpqa.jsonl", gpqa, 198)]
    for task, split, file in zip(
        content["evaluation"]["tasks"], ("test", "train"), files, strict=True
    ):
        task["dataset"] = {split: file}
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def _rows(path: Path, row: dict[str, str], n: int) -> str:
    lines = [json.dumps({key: value.format(i=i) for key, value in row.items()}) for i in range(n)]
    path.write_text("\n".join(lines))
    return str(path)


def test_the_ready_spec_of_a_4b_pair_prints_its_plan(tmp_path: Path) -> None:
    parents = [str(_qwen(tmp_path / name)) for name in ("instruct", "thinking")]
    path = _ready_spec(tmp_path, *parents)
    plan = dict(plan_study(StudySpec.from_yaml(path)))
    assert (
        "36 layers, tied head, 398 tensors, 4.02 B parameters, 7.49 GiB in bfloat16"
        in plan["models"]
    )
    assert plan["search"].startswith("36 variables (layer_000 ... layer_035), weights from 0 to 1")
    assert plan["trials"] == "48: 2 parents, 6 uniform merges, 40 proposed by mergefront"
    assert "aime25: 3 importance, 12 search, 8 validation, 7 test" in plan["questions"]
    assert "gpqa-diamond: 20 importance, 79 search" in plan["questions"]
    assert plan["answers"].startswith("91 a candidate, 2.98 M tokens at most; 4368 in all, 143 M")
    assert "7.49 GiB of weights (the live model)" in plan["memory"]
    assert "5.06 GiB at 36864 tokens" in plan["memory"]
    assert not (tmp_path / "runs").exists()


def test_of_models_on_the_hub_only_headers_are_fetched(tmp_path: Path) -> None:
    instruct, thinking = "Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen3-4B-Thinking-2507"
    models = {name: _qwen(tmp_path / "hub" / name) for name in (instruct, thinking)}
    path = _ready_spec(tmp_path, instruct, thinking)
    with serve_models(models) as hub:
        result = at_hub(hub, tmp_path / "cache", "run", path, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "398 tensors, 4.02 B parameters, 7.49 GiB in bfloat16" in result.stdout
    weights = [n for name, n in hub.served.items() if name.endswith(".safetensors")]
    assert len(weights) == 4 and sum(weights) < 1 << 20
    assert not (tmp_path / "runs").exists()


def test_models_of_the_hub_are_fetched_once(tmp_path: Path) -> None:
    models = {f"team/{path.name}": tmp_path / "hub" / path.name for path in (BASE, EXPERT)}
    for path, copy in zip((BASE, EXPERT), models.values(), strict=True):
        shutil.copytree(path, copy)
        (copy / "README.md").write_text("---\nlicense: cc-by-nd-4.0\n---\n")
        (copy / "original").mkdir()
        for name in ("picture.png", "pytorch_model.bin", "original/params.json"):
            (copy / name).write_text("not needed")
        for name in ("consolidated.safetensors", "original/model.safetensors"):
            shutil.copy(copy / "model.safetensors", copy / name)  # as some repositories have them
    base, expert = models
    spec = write_spec(tmp_path, study={"trials": 3}, models={"base": base, "experts": [expert]})
    with serve_models(models) as hub:
        result = at_hub(hub, tmp_path / "cache", "run", spec)
        assert result.returncode == 0, result.stderr
        unwanted = ("picture", "pytorch_model", "consolidated", "original")
        assert not [name for name in hub.served if any(part in name for part in unwanted)]
        size = (BASE / "model.safetensors").stat().st_size
        weights = [n for name, n in hub.served.items() if name.endswith(".safetensors")]
        assert weights == [size, size]
        refused = at_hub(hub, tmp_path / "cache", "publish", spec, "--trial", 0, "--to", "out")
        assert refused.returncode == 1 and "under cc-by-nd-4.0" in refused.stderr
        hub.served.clear()
        again = at_hub(hub, tmp_path / "cache", "run", spec, "--dry-run", offline=True)
    assert again.returncode == 0, again.stderr
    assert not hub.served and "499 k parameters" in again.stdout


def test_a_revision_of_a_model_of_the_hub_is_taken(tmp_path: Path) -> None:
    models = {"team/model": EXPERT, "team/model@before-tuning": BASE}
    parents = {"base": "team/model@before-tuning", "experts": ["team/model"]}
    spec = write_spec(tmp_path, study={"trials": 2}, models=parents)
    with serve_models(models) as hub:
        planned = at_hub(hub, tmp_path / "other", "run", spec, "--dry-run")
        result = at_hub(hub, tmp_path / "cache", "run", spec)
        again = at_hub(hub, tmp_path / "cache", "run", spec, "--dry-run", offline=True)
    assert planned.returncode == result.returncode == again.returncode == 0, result.stderr
    base, expert = load_study(StudySpec.from_yaml(spec)).trials
    assert base.values[1] < 3 < expert.values[1]  # tokens: one answers at once, one reasons


def test_a_gated_model_says_what_to_do(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, models={"base": "team/base"})
    with serve_models({"team/base": BASE}, gated=frozenset({"team/base"})) as hub:
        result = at_hub(hub, tmp_path / "cache", "run", spec, "--dry-run")
    assert result.returncode == 1
    assert "'team/base' is gated on the hub. Accept its terms there" in result.stderr


def test_nothing_is_created(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = invoke("run", path, "--dry-run")
    assert result.exit_code == 0
    titles = [line.split()[0] for line in result.stdout.splitlines()]
    expected = "models search trials questions answers price visible decoding memory"
    assert titles == expected.split()
    assert "10 variables (layer_000 ... head)" in result.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_other_experts_in_a_study_that_exists_are_told(tmp_path: Path) -> None:
    """As by the run, where the weights of both were read before."""
    path = write_spec(tmp_path, 4, study={"trials": 2})
    assert invoke("run", path).exit_code == 0
    changed = tmp_path / "changed"
    shutil.copytree(EXPERT, changed)
    tensors = load_file(changed / "model.safetensors")
    save_file({n: t + 1 for n, t in tensors.items()}, changed / "model.safetensors")
    other = write_spec(tmp_path, 4, study={"trials": 2}, models={"experts": [str(changed)]})
    assert invoke("run", other, "--dry-run").exit_code == 0  # nothing is read for a plan
    ran, planned = invoke("run", other), invoke("run", other, "--dry-run")
    assert "models.experts" in ran.stderr
    assert (planned.exit_code, ran.exit_code) == (1, 1)
    assert planned.stderr.startswith("Error: ") and planned.stderr in ran.stderr


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    path = write_spec(tmp_path, models={"base": "nobody/nothing"})
    result = invoke("run", path, "--dry-run")
    assert result.exit_code == 1
    assert "could not be fetched from the hub" in result.stderr


def test_an_outline_has_the_headers_of_its_model(tmp_path: Path) -> None:
    shapes = Checkpoint(BASE).shapes()
    (tmp_path / "config.json").write_text("{}")
    write_outline(tmp_path / "model.safetensors", {n: ("BF16", s) for n, s in shapes.items()})
    outline = Checkpoint(tmp_path)
    assert outline.shapes() == shapes
    size = sum(math.prod(shape) for shape in shapes.values()) * 2
    assert (tmp_path / "model.safetensors").stat().st_size > size
    assert not outline.tensor(next(iter(shapes))).load().to(torch.float32).any()


def test_models_on_disk_are_taken_as_they_are(tmp_path: Path) -> None:
    assert outline_model(str(BASE), tmp_path, tmp_path) == BASE.resolve()
    with pytest.raises(SpecError, match="directory or a hub id"):
        outline_model("./missing", tmp_path, tmp_path)


QUESTION = {"Question": "Which {i}?", "Correct Answer": "yes {i}"}
QUESTION |= {f"Incorrect Answer {k}": f"no {k} {{i}}" for k in (1, 2, 3)}
# The columns of the data sets that the examples' tasks ask.
COLUMNS: dict[str, tuple[str, dict[str, object]]] = {
    "gsm8k": ("train test", {"question": "{i} and {i}?", "answer": "Add.\n#### {i}"}),
    "math500": ("test", {"problem": "{i}?", "solution": "$\\boxed{{{i}}}$", "answer": "{i}"}),
    "aime25": ("test", {"problem": "Find {i}.", "answer": "{i}"}),
    "gpqa-diamond": ("train", {**QUESTION}),
    "ifeval": (
        "train",
        {
            "key": "{i}",
            "prompt": "{i}: lowercase.",
            "instruction_id_list": ["change_case:english_lowercase"],
            "kwargs": [{}],
        },
    ),
}


def _stand_in(example: Path, folder: Path) -> Path:
    """Return an example over models without weights and questions of its data sets' columns."""
    content = yaml.safe_load(example.read_text())
    if not (example.parent / content["models"]["base"]).is_dir():
        experts = content["models"]["experts"]
        content["models"]["base"] = str(_qwen(folder / "base"))
        content["models"]["experts"] = [str(_qwen(folder / f"e{k}")) for k in range(len(experts))]
    for task in content["evaluation"]["tasks"]:
        if "lm_eval" in task:
            splits, row = COLUMNS[task["name"]]
            lines = [
                {k: v.format(i=i) if isinstance(v, str) else v for k, v in row.items()}
                for i in range(30)
            ]
            path = folder / f"{task['name']}.jsonl"
            path.write_text("\n".join(map(json.dumps, lines)))
            task["dataset"] = dict.fromkeys(splits.split(), str(path))
    spec = folder / example.name
    spec.write_text(yaml.safe_dump(content))
    return spec


@pytest.mark.parametrize("name", sorted(p.name for p in (REPOSITORY / "examples").glob("*.yaml")))
def test_every_shipped_example_can_be_planned(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = REPOSITORY / "examples" / name
    own = "demo/" in example.read_text()
    path = example if own else _stand_in(example, tmp_path)
    monkeypatch.chdir(tmp_path)
    result = invoke("run", path, "--dry-run")
    assert result.exit_code == 0, result.output
    for title in ("models", "search", "trials", "questions", "answers", "memory"):
        assert title in result.output
    assert not (tmp_path / "runs").exists()


def test_models_that_hold_the_same_weights_are_told(tmp_path: Path) -> None:
    shutil.copytree(EXPERT, tmp_path / "copy")
    models = {"experts": [str(EXPERT), str(tmp_path / "copy"), str(BASE)]}
    path = write_spec(tmp_path, 4, models=models, merge={"operator": "ties"})
    told = [text for title, text in plan_study(StudySpec.from_yaml(path)) if title == "warning"]
    base, expert = BASE.resolve(), EXPERT.resolve()
    then = "Correct `models.experts`, or leave one out"
    assert told == [
        f"the base and expert 3 hold the same weights: {base} and {base}. {then}",
        f"experts 1 and 2 hold the same weights: {expert} and {tmp_path / 'copy'}. {then}",
    ]


def test_a_full_disk_is_told_before_anything_is_created(
    spec_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {*spec_path.parent.iterdir()}
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**20, total=2**30))
    spec = StudySpec.from_yaml(spec_path)
    for does in (plan_study, run):
        with pytest.raises(StudyError, match=r"1\.0 MiB are free, 16 are needed.*make room"):
            does(spec)
        assert {*spec_path.parent.iterdir()} == there
    refused = invoke("run", str(spec_path), "--workers", "2")
    assert refused.exit_code == 1 and "1.0 MiB are free" in refused.stderr
    assert {*spec_path.parent.iterdir()} == there
