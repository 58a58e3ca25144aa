set -e
apt-get update -qq
apt-get install -y -qq --no-install-recommends python3 python3-venv python3-numpy python3-typing-extensions python3-pil python3-requests libgomp1 $(cat /k/clean-packages.txt) > /k/clean-apt.txt 2>&1
python3 -m venv --system-site-packages /tmp/v
/tmp/v/bin/pip install --no-index --no-deps /k/out/*.whl
cd /tmp
/tmp/v/bin/python /v/probe.py
/tmp/v/bin/python /v/torchvision_probe.py
