// The time that emulated work takes. The libraries say how long a call of theirs would take; kernels take no time. An
// event notes the time at which it is recorded, so that a program which measures with events finds what the libraries
// say, and the same in each run.
#include <cstdint>
#include <map>
#include <mutex>
#include "driver.hpp"
static std::mutex lock;
static double now;
static std::map<void *, double> recorded;
extern "C" __attribute__((visibility("default"))) void emulated_took(double milliseconds) {
    std::lock_guard<std::mutex> guard(lock);
    now += milliseconds;
}
API cuEventRecord(void *event, void *stream) {
    if (int error = emulated::not_on_recorded_stream(stream, "an event is recorded", emulated::CAPTURED_EVENT)) return error;
    std::lock_guard<std::mutex> guard(lock);
    recorded[event] = now;
    return 0;
}
API cuEventElapsedTime_v2(float *milliseconds, void *from, void *to) {
    std::lock_guard<std::mutex> guard(lock);
    if (!recorded.count(from) || !recorded.count(to)) return 400;
    *milliseconds = recorded[to] - recorded[from];
    return 0;
}
// How many descriptors of cuDNN's graphs were made, and how many of them are there.
static uint64_t descriptors[2];
extern "C" __attribute__((visibility("default"))) void emulated_descriptor(int more) {
    std::lock_guard<std::mutex> guard(lock);
    if (more > 0) ++descriptors[0];
    descriptors[1] += more;
}
extern "C" __attribute__((visibility("default"))) void emulated_descriptors(uint64_t *made_and_there) {
    std::lock_guard<std::mutex> guard(lock);
    made_and_there[0] = descriptors[0], made_and_there[1] = descriptors[1];
}
