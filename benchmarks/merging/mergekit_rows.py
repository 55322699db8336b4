"""The same merges by mergekit, for the speed table; run by an environment that has it."""

import json
import shutil
import sys
import time
from pathlib import Path


def main() -> None:
    """Print CPU seconds and peak memory of one merge, imports not counted."""
    import yaml
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    work, row = Path(sys.argv[1]), sys.argv[2]
    method = row.split(",")[0]
    weights = [0.1 + 0.02 * i for i in range(28)]
    if method == "linear":
        models = [
            {"model": str(work / "base"), "parameters": {"weight": [1 - w for w in weights]}},
            {"model": str(work / "one"), "parameters": {"weight": weights}},
        ]
        content = {"merge_method": "linear", "models": models, "dtype": "bfloat16"}
    else:
        expert = {
            "model": str(work / "one"),
            "parameters": {"weight": weights, "density": 0.5},
        }
        content = {
            "merge_method": "ties",
            "base_model": str(work / "base"),
            "models": [expert],
            "dtype": "bfloat16",
        }
    configuration = MergeConfiguration.model_validate(yaml.safe_load(yaml.safe_dump(content)))
    start = time.process_time()
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    run_merge(configuration, str(work / "mergekit"), options=options)
    seconds = time.process_time() - start
    shutil.rmtree(work / "mergekit")
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1e6
    print(json.dumps({"CPU s": seconds, "peak GB": peak}))


if __name__ == "__main__":
    main()
