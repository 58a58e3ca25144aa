// The smallest kernel that says whether this toolchain makes code for the plan's cards.
__global__ void scale(float *values, float factor) { values[threadIdx.x] *= factor; }
