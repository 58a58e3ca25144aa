// Uses what a submodule or the distribution must give: fmt, pocketfft, sleef, flatbuffers, kineto.
#include <fmt/format.h>
#include <pocketfft_hdronly.h>
#ifdef USE_SYSTEM_SLEEF
#include <sleef.h>
#else
static double Sleef_sin_u10(double value) { return value; }
#endif

#include <torch/csrc/jit/serialization/mobile_bytecode_generated.h>
#include <torch/csrc/profiler/kineto_shim.h>

namespace at {
double lerp(double start, double end, double weight) {
  auto activity = libkineto::ActivityType::CPU_OP;
  (void)activity;
  return start + weight * (end - start) + Sleef_sin_u10(0.0);
}
const char* describe() {
  static std::string text = fmt::format("lerp of {}", "two");
  return text.c_str();
}
}  // namespace at
