# What runtime sets for whoever uses it: . environment-runtime.sh
# shellcheck shell=sh
export ENVFORGE_PYTHON=/usr/bin/python2.7
