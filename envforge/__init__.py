"""envforge: reproducible PyTorch builds and training for left-behind NVIDIA cards."""
