# Both commands need only Python >= 3.11 and make: they build their own environment in .venv.
PYTHON ?= python3
BIN := .venv/bin
# What `make env` installs; EXTRAS=test,tfds,frameworks,torch has the tests of all extras run too.
EXTRAS ?= test
# Tests of every part of the library and a study, for environments other than the usual one.
HEART := $(patsubst %,tests/test_%.py,theory sampling heavy_ball ensemble hessian lanczos \
	trajectory statistics data results plotting study)

.PHONY: demo test test-lowest test-nightly test-compiled lint docs notebooks env clean

demo: env
	$(BIN)/python -m experiments.lenet --flagfile=experiments/presets/demo.flags

test: env lint
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

# The lowest versions that setup.cfg allows.
test-lowest:
	$(PYTHON) -m venv --clear build/lowest
	build/lowest/bin/python -m pip install --quiet uv
	build/lowest/bin/uv pip install --quiet --python build/lowest/bin/python \
		--resolution lowest-direct --editable '.[test]'
	build/lowest/bin/python -m pytest -q -n 2 --dist loadfile -m "not slow" $(HEART)

# The newest versions of all and the pre-releases of jax; JAX_INDEX=--extra-index-url=… for its
# nightly builds, of the address that JAX's installation page names.
test-nightly:
	$(PYTHON) -m venv --clear build/nightly
	build/nightly/bin/python -m pip install --quiet --editable '.[test]'
	build/nightly/bin/python -m pip install --quiet --pre --upgrade $(JAX_INDEX) jax jaxlib
	build/nightly/bin/python -m pytest -q -n 2 --dist loadfile -m "not slow" $(HEART)

# The programs of a study compiled for a TPU and a GPU that need not be there.
test-compiled:
	$(PYTHON) -m venv --clear build/compilers
	build/compilers/bin/python -m pip install --quiet --constraint constraints.txt \
		--editable '.[test,aot_tpu,aot_gpu]'
	build/compilers/bin/python -m pytest -q -m "not slow" tests/test_compiled.py

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site of the documentation: build/docs/index.html. A warning is an error.
docs: env
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# The notebooks with their outputs, from the sources beside them.
notebooks: env
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[notebooks]'
	$(BIN)/jupytext --quiet --to ipynb notebooks/*.py
	$(BIN)/jupyter nbconvert --to notebook --inplace --execute \
		--ExecutePreprocessor.record_timing=False notebooks/*.ipynb

env: .venv/.installed

.venv/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
