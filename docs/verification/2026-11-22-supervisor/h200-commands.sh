set -x
cd "$(dirname "$0")"
HERE=$PWD
export PYTHONPATH=$HERE/site:$HERE/tree ENVFORGE_STATE=/tmp/state NO_COLOR=1
ef() { python3 -m envforge "$@"; }
mkdir -p /tmp/r; cd /tmp/r
nvidia-smi -L; python3 -c "import torch; print(torch.__version__, torch.version.cuda)"
date -u
time ef run canary --on local --interpreter $HERE/capped --gpu --run-dir canary --set batch_size=512 --set image_size=128 --set steps=900 --set log_every=5 2>&1 | tee $OUT/canary.txt
date -u
time ef run $HERE/tree/tests/recipe/pupil --on local --interpreter $HERE/capped --gpu --run-dir pupil --set hog_mib=700 --set rate=0.08 --set nan_above=0.03 --set steps=400 --set delay=0.01 2>&1 | tee $OUT/pupil.txt
date -u
ef runs profile canary; ef runs list .; cat /tmp/state/*.json
python3 -c "
import torch
for n in ('model_0000020.pth',):
    d = torch.load('pupil/'+n, weights_only=False); print(n, d['optimizer']['param_groups'][0]['lr'], d['scheduler']['base_lrs'])"
# a second run of the same recipe on the same card begins with what worked
ef run $HERE/tree/tests/recipe/pupil --on local --interpreter $HERE/capped --gpu --run-dir again --set hog_mib=700 --set steps=60 2>&1 | tee $OUT/again.txt
# the supervisor's cost: the same steps alone and watched, in turn
cd /tmp; tar czf $OUT/canary.tgz --exclude=checkpoints --exclude=protected -C r canary; tar czf $OUT/pupil.tgz -C r pupil; tar czf $OUT/again.tgz --exclude=*.pth -C r again
ls -la $OUT
