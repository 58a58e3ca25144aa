#!/bin/bash
# PyTorch 1.13.1's own tests on the CPU: run_tests.sh OUT [PROCESSES]
out=$1; n=${2:-1}; mkdir -p "$out"; cd /tests/test
export PYTHONPATH=/tests/extra OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES= HOME=/tmp PYTORCH_TEST_WITH_SLOW=0
python3 -c 'import torch; print(torch.__version__, torch.__file__)' > "$out/version.txt" 2>&1
nproc >> "$out/version.txt"
for name in test_autograd test_torch test_nn; do
  one() { timeout 3000 python3 -m pytest "$1.py" -q -p no:cacheprovider -o addopts= --junitxml "$out/$1.xml" > "$out/$1.txt" 2>&1; echo "$1 rc=$? $(date -u +%FT%TZ)" >> "$out/done.txt"; }
  if [ "$n" = 1 ]; then one $name; else one $name & fi
done
wait
