cd /tmp/w; W=/tmp/w; set -x; date -u +%T
chmod +x zstd; sha256sum torch*.whl
./zstd -dcq rt.tar.zst | tar x; ./zstd -dcq site.tar.zst | tar x; mkdir -p rt/cuda rt/site
./zstd -dcq --long=27 libs.tar.zst | tar x -C rt/cuda & ./zstd -dcq --long=27 cudnn.tar.zst | tar x -C rt/cuda & python3 -m zipfile -e torch*.whl rt/site & wait
date -u +%T; D=$(dirname $(find /usr/local/nvidia /usr/lib -name 'libcuda.so.1' 2>/dev/null | head -1)); sed -i "s|/usr/local/nvidia/lib64|$D|; s/ PYTHONDONTWRITEBYTECODE=1//" rt/py
nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv
export CUDA_CACHE_PATH=$W/jit CUDA_CACHE_MAXSIZE=4294967296
timeout 100 rt/py -c "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available(), torch.cuda.get_arch_list(), torch.backends.cudnn.version())" 2>&1 | tail -5
python3 -m venv --without-pip /tmp/v; cp -r site/. /tmp/v/lib/python3.12/site-packages/
printf '#!/tmp/v/bin/python\nimport sys\nfrom envforge.__main__ import main\nsys.exit(main())\n' > /tmp/v/bin/envforge; chmod +x /tmp/v/bin/envforge
unset PYTHONPATH PYTHONHOME; E=/tmp/v/bin/envforge
$E inspect rt/site/torch/lib/libtorch_cuda.so | head -20 | tee $OUT/inspect.txt
for i in cold warm; do date -u +%T; s=$(date +%s.%N); timeout ${T1:-300} $E verify --rehearse --interpreter $W/rt/py --json > $OUT/rehearse-$i.json 2> $OUT/rehearse-$i.err; echo "rehearse $i rc $? $(echo "$(date +%s.%N) - $s" | bc 2>/dev/null || python3 -c "import time;print(time.time()-$s)") s"; tail -3 $OUT/rehearse-$i.err; du -sh jit; done
timeout 120 $E run canary --on local --interpreter $W/rt/py --gpu --run-dir $W/canary > $OUT/canary.txt 2>&1; echo canary rc $?; cp canary/run.json $OUT/canary-run.json; ls canary; tail -5 $OUT/canary.txt; date -u +%T
date -u +%T; timeout 60 $E verify --rehearse --interpreter $W/rt/py > $OUT/rehearse.txt 2>&1; echo rc $?
