#!/bin/sh
# Write down what this machine says about its NVIDIA cards, as one text file on standard output.
# Serial numbers, UUIDs and host names are left out or numbered. Add the result to tests/captures/hosts
# under a name that is the right answer (see README.md beside this file):
#     sh tests/captures/capture.sh >tests/captures/hosts/<answer>__real.txt
set -u
LC_ALL=C
export LC_ALL

file() { [ -f "$1" ] && { echo "== $1"; tr '\000' '\001' <"$1" | sed 's/\x01/\\0/g'; echo; }; }
node() { [ -e "$1" ] && echo "== node $1"; }
link() { [ -L "$1" ] && echo "== $1 -> $(basename "$(readlink -f "$1")")"; }
run() { echo "== \$ $*"; timeout 60 "$@" 2>&1; echo "== exit $?"; }

everything() {
  for function in /sys/bus/pci/devices/*; do
    [ "$(cat "$function/vendor" 2>/dev/null)" = 0x10de ] || continue
    for name in vendor device class subsystem_vendor subsystem_device; do file "$function/$name"; done
    for name in driver physfn; do link "$function/$name"; done
  done
  for path in /sys/module/nvidia/version /proc/driver/nvidia/version \
    /proc/driver/nvidia/gpus/*/information /proc/sys/kernel/osrelease \
    /proc/device-tree/compatible /proc/device-tree/model /etc/nv_tegra_release \
    /run/.containerenv /.dockerenv; do file "$path"; done
  [ -f /etc/os-release ] && { echo "== /etc/os-release"; grep -E '^(ID|VERSION_ID)=' /etc/os-release; }
  for path in /dev/nvidia* /dev/dxg /dev/nvhost-gpu; do node "$path"; done
  find /proc/driver/nvidia/capabilities -type d -name mig 2>/dev/null | sort | sed 's/^/== dir /'
  find /proc/driver/nvidia/capabilities -type f 2>/dev/null | sort | sed 's/^/== node /'
  for folder in /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu /usr/lib64 /usr/lib /usr/lib/wsl/lib \
    /usr/local/nvidia/lib64; do
    for name in libcuda.so.1 libnvidia-ml.so.1 libnvidia-container.so.1; do link "$folder/$name"; done
  done
  env | grep -E '^(CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|NVIDIA_VISIBLE_DEVICES|container)=' | sed 's/^/== env /'
  smi=$(command -v nvidia-smi || echo /usr/lib/wsl/lib/nvidia-smi)
  [ -x "$smi" ] || return 0
  PATH=$(dirname "$smi"):$PATH
  for fields in index,uuid,name,pci.bus_id,pci.device_id,driver_version index,compute_cap \
    index,memory.total index,mig.mode.current no_such_field; do
    run nvidia-smi "--query-gpu=$fields" --format=csv,noheader,nounits
  done
  child=$(dirname "$0")/../../envforge/hardware/nvml_child.py
  [ -f "$child" ] && echo "== nvml" && timeout 60 python3 "$child"
}

# The same UUID gets the same number everywhere: CUDA_VISIBLE_DEVICES is mapped by it.
number_uuids() {
  awk '{ while (match($0, /GPU-[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]-[-0-9a-f]*/)) {
           uuid = substr($0, RSTART, RLENGTH)
           if (!(uuid in seen)) seen[uuid] = sprintf("GPU=%08d-0000-0000-0000-000000000000", ++count)
           $0 = substr($0, 1, RSTART - 1) seen[uuid] substr($0, RSTART + RLENGTH)
         }
         gsub(/GPU=/, "GPU-"); print }'
}

everything | number_uuids
