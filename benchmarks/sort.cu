// A file as heavy for the compiler as PyTorch's own sorting and reducing kernels: templates of CUB
// through Thrust, for several types.
#include <thrust/device_ptr.h>
#include <thrust/execution_policy.h>
#include <thrust/reduce.h>
#include <thrust/sort.h>
#include <thrust/unique.h>

template <typename Key>
long sort_unique(Key *keys, long *values, long count) {
  thrust::device_ptr<Key> begin(keys);
  thrust::device_ptr<long> numbers(values);
  thrust::sort_by_key(thrust::device, begin, begin + count, numbers);
  auto end = thrust::unique_by_key(thrust::device, begin, begin + count, numbers);
  return thrust::reduce(thrust::device, numbers, end.second);
}

template long sort_unique<int>(int *, long *, long);
template long sort_unique<float>(float *, long *, long);
