#!/bin/sh
# A Python whose torch may take 2 GiB of the card, for trainings; everything else runs as it is.
case "$1" in
  *canary.py|*pupil.py) exec python3 -W ignore -c '
import runpy, sys, torch
if torch.cuda.is_available():
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(2 * 2**30 / total)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")' "$@" ;;
  *) exec python3 "$@" ;;
esac
