# What wheels sets for whoever uses it: . environment-wheels.sh
# shellcheck shell=sh
