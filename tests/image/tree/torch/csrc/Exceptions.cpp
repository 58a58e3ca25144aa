// Not compiled here: the miniature's own fmt has no buffers. It is the place that a patch changes.
#include <fmt/format.h>
void warn() {
        fmt::memory_buffer buf;
        fmt::format_to(
            buf,
            "{}", 1);
}
