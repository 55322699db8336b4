"""The samplers need Optuna and BoTorch, and none of what merging, evaluation and reports need."""

import subprocess
import sys

_PROGRAM = """
import sys

FOREIGN = {"transformers", "tokenizers", "safetensors", "matplotlib", "sklearn", "cmaes",
           "typer", "huggingface_hub", "pydantic"}


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in FOREIGN:
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Absent())
import optuna
from mergefront.samplers import SIPSampler, denoise

study = optuna.create_study(
    directions=["maximize", "minimize"], sampler=SIPSampler(n_startup_trials=2, seed=0)
)


def objective(trial):
    x = trial.suggest_float("layer_000", 0, 1)
    trial.set_user_attr("standard_errors", [0.1, 0.1])
    return x, x * x


study.optimize(objective, n_trials=4)
print(len(study.trials), denoise(study).means.shape)
"""


def test_the_sampler_runs_without_what_only_merging_needs() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True)
    assert done.stdout == "4 torch.Size([4, 2])\n", done.stderr
