#include <cublas_v2.h>

namespace at { namespace native {
__global__ void add_kernel(float* out, const float* a, const float* b, float w) {
  out[threadIdx.x] = a[threadIdx.x] + w * b[threadIdx.x];
}
void add(float* out, const float* a, const float* b, float w) {
  cublasHandle_t handle;
  cublasCreate(&handle);
  add_kernel<<<1, 32>>>(out, a, b, w);
}
}}
